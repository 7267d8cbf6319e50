// One row of the table of entries.

import { h, short, textOr, visible } from "../lib/dom.js";
import { everything } from "../lib/time.js";
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

/** Number of columns of the table. */
export const COLUMNS = 8;

/**
 * State of the table that its rows depend on: the time to show ("recorded" or "occurred"), the key of the selected row,
 * messages about rows whose order is uncertain, and the functions that open a row and filter by a value.
 * @typedef {{
 *   axis: string,
 *   selected: string,
 *   uncertain: Map<string, string>,
 *   open: (row: any) => void,
 *   filter: (key: string, value: string, exclude: boolean) => void,
 * }} View
 */

/** A row, and whether it has just arrived in live mode. @typedef {{ row?: any, isNew?: boolean }} Item */

/** Returns the time of a row that the table shows, or "" if the row has no valid time. */
export const shownTime = (row, axis) => (axis === "occurred" && occurredOf(row)) || timeOf(row);

/**
 * Renders a row. An error must not affect the other rows: a row that fails verification can contain anything.
 * @param {Item} item
 * @param {{ time: string, fraction: string } | null} at time of day, null if the row has no valid time
 * @param {View} view
 */
export function renderRow(item, at, view) {
  try {
    return renderValidRow(item, at, view);
  } catch (error) {
    console.error(error);
    return renderInvalidRow(item.row, view.open);
  }
}

/**
 * @param {Item} item
 * @param {{ time: string, fraction: string } | null} at
 * @param {View} view
 */
function renderValidRow({ row, isNew }, at, view) {
  const entry = entryOf(row);
  const entity = entityOf(entry);
  const key = keyOf(row);
  const value = (name, text) => valueButton(name, text, view.filter);
  return h(
    "tr",
    {
      "data-entry": placeOf(row),
      "data-key": key,
      "aria-selected": key === view.selected ? "true" : null,
      class: [row.integrity === "violation" && "violation", isNew && "new"].filter(Boolean).join(" ") || null,
      onclick: () => view.open(row),
    },
    timeCell(row, at, view),
    h("td", {}, value("node", nodeOf(row))),
    actorCell(entry, value),
    actionCell(row, value),
    h("td", {}, entity ? value("entity", entity) : textOr(entry.target) ? value("target", entry.target) : "–"),
    h("td", { class: "mono" }, textOr(entry.ip_address) ? value("ip", entry.ip_address) : "–"),
    h("td", {}, row.erased || row.withheld ? "–" : outcomeBadge(entry.outcome), " ", flagBadge(entry)),
    h("td", { class: "integrity" }, integrityBadges(row)),
  );
}

function renderInvalidRow(row, open) {
  return h(
    "tr",
    { "data-entry": placeOf(row), "data-key": keyOf(row), class: "violation", onclick: () => open(row) },
    h(
      "td",
      { colspan: COLUMNS },
      h(
        "button",
        { type: "button", class: "link-button row-link", tabindex: -1 },
        `${visible(placeOf(row))} is not a valid entry; open it to see its bytes. `,
      ),
      integrityBadges(row),
    ),
  );
}

/** Renders the button that opens the row, labelled with its time, and a mark if the order of the row is uncertain. */
function timeCell(row, at, view) {
  const key = keyOf(row);
  const time = at
    ? h(
        "time",
        { datetime: shownTime(row, view.axis), title: timeTitle(row) },
        at.time,
        h("span", { class: "fraction" }, `.${at.fraction.slice(0, 3)}`),
      )
    : h("span", {}, "no time");
  const doubt = view.uncertain.get(key);
  return h(
    "td",
    { class: "time" },
    h(
      "button",
      { type: "button", class: "link-button row-link", tabindex: key === view.selected ? 0 : -1 },
      time,
      h("span", { class: "visually-hidden" }, ` open ${placeOf(row)}`),
    ),
    doubt && h("span", { class: "uncertain", title: doubt }, " ~", h("span", { class: "visually-hidden" }, doubt)),
  );
}

function timeTitle(row) {
  const recorded = everything(timeOf(row));
  return occurredOf(row) ? `recorded ${recorded}; occurred ${everything(occurredOf(row))}` : recorded;
}

function actorCell(entry, value) {
  const { user, impersonator } = actorWords(entry);
  return h(
    "td",
    {},
    user ? value("user", user) : h("span", { class: "muted" }, "–"),
    impersonator && [h("span", { class: "muted" }, " impersonated by "), value("impersonator", impersonator)],
  );
}

function actionCell(row, value) {
  const { action } = entryOf(row);
  if (row.erased) return h("td", {}, h("em", {}, short(row.reason ?? "erased")));
  if (textOr(action)) return h("td", {}, value("action", action));
  return h("td", {}, h("em", {}, short(textOr(row.entry) ?? row.reason ?? "–", 60)));
}

/** Renders a value as a button that filters by it. */
function valueButton(key, text, filter) {
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
    short(text),
  );
}
