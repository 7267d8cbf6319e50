// The table of entries. One row is selected at a time, and a click on a value filters by it.

import { digits, h, put, short, textOr, visible } from "../lib/dom.js";
import { everything, micros, parts, zoneLabel } from "../lib/time.js";
import { isMissing } from "./node-words.js";
import {
  actorWords,
  entityOf,
  entryOf,
  flagBadge,
  integrityBadges,
  keyOf,
  nodeOf,
  occurredOf,
  outcomeBadge,
  placeOf,
  timeOf,
} from "./row.js";

const COLUMNS = 8;
/** Maximum number of rows in live mode; beyond it the oldest are removed. */
const SHOWN_MAX = 1_000;

/** Creates the table. `open(row)` opens one row, `filter(key, value, exclude)` adds a condition. */
export function rowTable({ open, filter }) {
  const body = h("tbody", { onkeydown: alongRow });
  const timeHead = h("th", { scope: "col", "aria-sort": "descending" });
  const caption = h("caption", { class: "visually-hidden" }, "Entries");
  const head = h(
    "tr",
    {},
    timeHead,
    ["Node", "Actor", "Action", "Entity", "IP", "Outcome", "Integrity"].map((name) => h("th", { scope: "col" }, name)),
  );
  const element = h(
    "div",
    { class: "table-container entry-table" },
    h("table", {}, caption, h("thead", {}, head), body),
  );
  let shown = [];
  let uncertainty = null;
  let order = "desc";
  let chosen = "";
  let axis = "recorded";
  const shownTime = (row) => (axis === "occurred" && occurredOf(row)) || timeOf(row);
  let empty = "Querying all nodes…";

  function draw() {
    timeHead.textContent = axis === "occurred" ? `Occurred (${zoneLabel()})` : `Time (${zoneLabel()})`;
    timeHead.setAttribute("aria-sort", order === "desc" ? "descending" : "ascending");
    const unsure = uncertainPairs(
      shown.filter((item) => !item.message),
      uncertainty,
    );
    let day = "";
    const lines = [];
    for (const item of shown) {
      if (item.message) {
        lines.push(h("tr", { class: "status-row" }, h("td", { colspan: COLUMNS }, item.message)));
        continue;
      }
      const at = shownTime(item.row) ? parts(shownTime(item.row)) : null;
      if (at && at.day !== day) {
        day = at.day;
        lines.push(h("tr", { class: "day-header" }, h("th", { colspan: COLUMNS, scope: "colgroup" }, day)));
      }
      lines.push(safeLine(item, at, unsure.get(keyOf(item.row))));
    }
    if (lines.length === 0) lines.push(h("tr", {}, h("td", { colspan: COLUMNS, class: "empty-state" }, empty)));
    const focused = body.contains(document.activeElement) ? document.activeElement.closest("tr")?.dataset.entry : null;
    put(body, lines);
    if (focused)
      body.querySelector(`tr[data-entry="${CSS.escape(focused)}"] button.row-link`)?.focus({ preventScroll: true });
  }

  /** Renders a row. An error must not affect the other rows: a row that fails verification can contain anything. */
  function safeLine(item, at, doubt) {
    try {
      return line(item, at, doubt);
    } catch (error) {
      console.error(error);
      return h(
        "tr",
        {
          "data-entry": placeOf(item.row),
          "data-key": keyOf(item.row),
          class: "violation",
          onclick: () => open(item.row),
        },
        h(
          "td",
          { colspan: COLUMNS },
          h(
            "button",
            { type: "button", class: "link-button row-link", tabindex: -1 },
            `${visible(placeOf(item.row))} is not a valid entry; open it to see its bytes. `,
          ),
          integrityBadges(item.row),
        ),
      );
    }
  }

  function value(key, text, words = short(text)) {
    return h(
      "button",
      {
        type: "button",
        class: "link-button value",
        tabindex: -1,
        title: "Click to filter, alt-click to exclude. Keys: f and x; ← and → move along the row.",
        onclick: (event) => {
          event.stopPropagation();
          filter(key, text, event.altKey);
        },
      },
      words,
    );
  }

  function line({ row, isNew }, at, doubt) {
    const entry = entryOf(row);
    const { user, impersonator } = actorWords(entry);
    const entity = entityOf(entry);
    const [here, key] = [placeOf(row), keyOf(row)];
    const time = at
      ? h(
          "time",
          { datetime: shownTime(row), title: timesOf(row) },
          at.time,
          h("span", { class: "fraction" }, `.${at.fraction.slice(0, 3)}`),
        )
      : h("span", {}, "no time");
    const mark =
      doubt && h("span", { class: "uncertain", title: doubt }, " ~", h("span", { class: "visually-hidden" }, doubt));
    return h(
      "tr",
      {
        "data-entry": here,
        "data-key": key,
        "aria-selected": key === chosen ? "true" : null,
        class: [row.integrity === "violation" && "violation", isNew && "new"].filter(Boolean).join(" ") || null,
        onclick: () => open(row),
      },
      h(
        "td",
        { class: "time" },
        h(
          "button",
          { type: "button", class: "link-button row-link", tabindex: key === chosen ? 0 : -1 },
          time,
          h("span", { class: "visually-hidden" }, ` open ${here}`),
        ),
        mark,
      ),
      h("td", {}, value("node", nodeOf(row))),
      h(
        "td",
        {},
        user ? value("user", user) : h("span", { class: "muted" }, "–"),
        impersonator && [h("span", { class: "muted" }, " impersonated by "), value("impersonator", impersonator)],
      ),
      h(
        "td",
        {},
        row.erased
          ? h("em", {}, short(row.reason ?? "erased"))
          : textOr(entry.action)
            ? value("action", entry.action)
            : h("em", {}, short(textOr(row.entry) ?? row.reason ?? "–", 60)),
      ),
      h("td", {}, entity ? value("entity", entity) : textOr(entry.target) ? value("target", entry.target) : "–"),
      h("td", { class: "mono" }, textOr(entry.ip_address) ? value("ip", entry.ip_address) : "–"),
      h("td", {}, row.erased || row.withheld ? "–" : outcomeBadge(entry.outcome), " ", flagBadge(entry)),
      h("td", { class: "integrity" }, integrityBadges(row)),
    );
  }

  function timesOf(row) {
    const recorded = everything(timeOf(row));
    return occurredOf(row) ? `recorded ${recorded}; occurred ${everything(occurredOf(row))}` : recorded;
  }

  function choose(key, { focus = true } = {}) {
    chosen = key;
    for (const tr of body.querySelectorAll("tr[data-entry]")) {
      const here = tr.dataset.key === key;
      if (here) tr.setAttribute("aria-selected", "true");
      else tr.removeAttribute("aria-selected");
      tr.querySelector("button.row-link").tabIndex = here ? 0 : -1;
      if (here && focus) {
        tr.querySelector("button.row-link").focus({ preventScroll: true });
        tr.scrollIntoView({ block: "nearest" });
      }
    }
  }

  const only = () => shown.filter((item) => !item.message).map((item) => item.row);
  return {
    element,
    /** Shows a page. */
    show(rows, envelope, asked, shownAxis) {
      axis = shownAxis;
      uncertainty = envelope.order_uncertainty_ms;
      order = asked;
      shown = rows.map((row) => ({ row }));
      empty = emptyWords(envelope);
      if (!rows.some((row) => keyOf(row) === chosen)) chosen = rows.length > 0 ? keyOf(rows[0]) : "";
      draw();
      return pairs(rows, uncertainty);
    },
    /** Adds new items at the top: rows, or messages about a node. Returns how many items were removed. */
    prepend(items) {
      const known = new Set(only().map(keyOf));
      const added = items.filter((item) => item.message || !known.has(keyOf(item.row)));
      const all = [
        ...added.map((item) => ({ ...item, isNew: true })).reverse(),
        ...shown.map((item) => ({ ...item, isNew: false })),
      ];
      shown = all.slice(0, SHOWN_MAX);
      draw();
      return all.length - shown.length;
    },
    /** Shows no rows, and a message that says why. */
    clear(words) {
      shown = [];
      empty = words;
      draw();
    },
    redraw: draw,
    rows: only,
    chosen: () => only().find((row) => keyOf(row) === chosen),
    choose,
    /** Moves the selection by some rows; returns the selected row. */
    move(by) {
      const rows = only();
      const at = rows.findIndex((row) => keyOf(row) === chosen);
      const next = rows[Math.min(rows.length - 1, Math.max(0, at + by))];
      if (next) choose(keyOf(next));
      return next;
    },
  };
}

/** Moves the focus along the values of a row, so that each can be reached by keyboard. */
function alongRow(event) {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const line = by && event.target.closest("tr[data-entry]");
  if (!line) return;
  const stops = [...line.querySelectorAll("button.row-link, button.value")];
  const next = stops[stops.indexOf(document.activeElement) + by];
  if (!next) return;
  next.focus();
  event.preventDefault();
}

/** Returns the text of the empty state: which nodes were searched, and which were not. */
function emptyWords(envelope) {
  const answered = envelope.nodes
    .filter((node) => !isMissing(node) && node.status !== "excluded")
    .map((node) => node.node_id);
  const not = envelope.nodes.filter(isMissing).map((node) => node.node_id);
  const without = not.length > 0 ? ` ${not.join(", ")} did not answer and may have matching entries.` : "";
  return `No matching entries on ${answered.join(", ") || "any node"}.${without}`;
}

/** Finds pairs of rows of different nodes that are closer together than their clocks may differ. */
function unsurePairs(rows, uncertaintyMs) {
  const found = [];
  for (let index = 0; index < rows.length; index += 1) {
    for (let other = index + 1; other < rows.length && other <= index + NEIGHBOURS_MAX; other += 1) {
      const [a, b] = [rows[index], rows[other]];
      if (!timeOf(a) || !timeOf(b)) continue;
      // Until the clocks have been compared, their differences are unknown, so the order of neighbours is uncertain.
      if (
        uncertaintyMs === null
          ? other > index + 1
          : Math.abs(micros(timeOf(a)) - micros(timeOf(b))) > uncertaintyMs * 1000
      )
        break;
      if (nodeOf(a) !== nodeOf(b)) found.push([a, b]);
    }
  }
  return found;
}

/** Maximum number of following rows that each row is compared with: a millisecond may contain thousands. */
const NEIGHBOURS_MAX = 50;

/** Returns the keys of rows whose order is uncertain, each with a message. */
function uncertainPairs(items, uncertaintyMs) {
  const found = new Map();
  const words =
    uncertaintyMs === null
      ? "the clocks have not been compared yet"
      : `clocks may differ by up to ${digits(uncertaintyMs)} ms`;
  for (const [a, b] of unsurePairs(
    items.map((item) => item.row),
    uncertaintyMs,
  )) {
    found.set(keyOf(a), `The order relative to the adjacent entry of ${nodeOf(b)} is uncertain: ${words}`);
    found.set(keyOf(b), `The order relative to the adjacent entry of ${nodeOf(a)} is uncertain: ${words}`);
  }
  return found;
}

const pairs = (rows, uncertaintyMs) => unsurePairs(rows, uncertaintyMs).length;
