// Tabs of the drawer with the content of an entry: fields, changes, and the stored bytes.

import { getRaw } from "../lib/api.js";
import { copy, h, save, short, visible, visibleLines } from "../lib/dom.js";
import { verdictSection } from "./drawer-verdicts.js";
import { everything, moment } from "../lib/time.js";
import { entityOf, entryOf, flagBadge, logOf, nodeOf, placeOf, seqOf, timeOf } from "./row.js";
import { quote } from "../lib/filter.js";
import { address, EVERYTHING } from "../lib/state.js";

/** Field, label and filter key, in the order of display. */
const FIELDS = [
  ["description", "Description"],
  ["user", "User", "user"],
  ["impersonator", "Impersonator", "impersonator"],
  ["user_type", "User type", "user_type"],
  ["action", "Action", "action"],
  ["category", "Category", "category"],
  ["outcome", "Outcome", "outcome"],
  ["reason", "Reason", "reason"],
  ["entity_name", "Entity name"],
  ["target", "Target", "target"],
  ["domain", "Domain", "domain"],
  ["ip_address", "IP address", "ip"],
  ["peer_address", "Peer address"],
  ["user_agent", "User agent"],
  ["auth_method", "Authentication", "auth_method"],
  ["credential", "Credential", "credential"],
  ["session", "Session", "session"],
  ["request_id", "Request ID", "request"],
  ["method", "Method"],
  ["path", "Path"],
  ["via", "Recorded via", "via"],
  ["id", "ID", "id"],
  ["occurred_at", "Occurred at"],
];
const SHOWN = new Set([
  ...FIELDS.map(([field]) => field),
  "v",
  "node_id",
  "seq",
  "timestamp",
  "entity_type",
  "entity_id",
  "changes",
  "details",
  "flags",
  "era",
  "salt",
  "generation",
]);
/** Maximum number of characters of one value; the raw bytes show all of them. */
const VALUE_CHARACTERS_MAX = 2_000;

export function summaryTab(row, { filter }) {
  if (row.withheld)
    return h("p", {}, "Only the position of this entry is shown, because the entry may be outside your scope.");
  if (row.erased)
    return h(
      "p",
      {},
      `The content was erased: ${visible(row.reason ?? "")} The entry's position ` +
        `in the log, its time (${moment(timeOf(row))}) and its hash remain.`,
    );
  const entry = entryOf(row);
  if (row.entry !== entry)
    return [
      h("p", { class: "error" }, "The bytes of this row are not a valid entry."),
      h("pre", {}, visible(row.entry)),
    ];
  const line = (heading, content) => h("tr", {}, h("th", { scope: "row" }, heading), h("td", {}, content));
  const entity = entityOf(entry);
  const lines = [
    line(
      "Time",
      timeOf(row)
        ? h("time", { datetime: timeOf(row), title: everything(timeOf(row)) }, moment(timeOf(row), { millis: true }))
        : visible(entry.timestamp ?? "none"),
    ),
    line("Node", value("node", nodeOf(row), filter)),
    ...FIELDS.filter(([field]) => entry[field] !== undefined && entry[field] !== null).map(([field, heading, key]) =>
      line(heading, value(key, entry[field], filter)),
    ),
  ];
  if (entity) {
    const history = address({ filter: `entity:${quote(entity)}`, from: EVERYTHING, to: "", order: "desc" });
    lines.splice(
      6,
      0,
      line("Entity", [value("entity", entity, filter), " ", h("a", { href: history }, "show history")]),
    );
  }
  for (const field of Object.keys(entry).filter((name) => !SHOWN.has(name)))
    lines.push(line(short(field, 40), value(null, entry[field], filter)));
  if (entry.details) lines.push(line("Details", h("pre", {}, pretty(entry.details))));
  return [
    row.reason && h("p", { class: "error" }, visible(row.reason)),
    flagBadge(entry),
    verdictSection(row),
    h("table", { class: "properties" }, h("tbody", {}, lines)),
    h("p", { class: "hint" }, "Click a value to filter by it, alt-click to exclude it."),
  ];
}

function value(key, content, filter) {
  const text = typeof content === "string" ? content : pretty(content);
  const shown = typeof content === "string" ? visible(text) : text;
  const cut = shown.length > VALUE_CHARACTERS_MAX;
  const words = cut ? `${shown.slice(0, VALUE_CHARACTERS_MAX)}…` : shown;
  const element = key
    ? h(
        "button",
        { type: "button", class: "link-button value", onclick: (event) => filter(key, text, event.altKey) },
        words,
      )
    : h("span", { class: "value" }, words);
  return cut
    ? [element, " ", h("span", { class: "hint" }, `(${shown.length} characters; see Raw bytes for the full value)`)]
    : element;
}

/** Keeps the line breaks of the formatting; line breaks of the entry itself are shown as code points. */
const pretty = (content) =>
  typeof content === "string" ? visible(content) : visibleLines(JSON.stringify(content, null, 2) ?? "");

export function changesTab(row) {
  const { changes } = entryOf(row);
  if (!Array.isArray(changes) || changes.length === 0) return h("p", { class: "hint" }, "No changes recorded.");
  const side = (name, content) =>
    content === undefined
      ? h("span", { class: "muted" }, "–")
      : h(name, {}, short(typeof content === "string" ? content : JSON.stringify(content), VALUE_CHARACTERS_MAX));
  const line = (change) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, visible(change?.field ?? "?")),
      h("td", {}, side("del", change?.old)),
      h("td", {}, side("ins", change?.new)),
    );
  return h(
    "div",
    { class: "table-container diff" },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ["Field", "− before", "+ after"].map((name) => h("th", { scope: "col" }, name)),
        ),
      ),
      h("tbody", {}, changes.map(line)),
    ),
  );
}

export async function rawTab(row) {
  if (row.withheld || row.erased) return h("p", {}, "No bytes to show.");
  const answer = await getRaw(`/audit-log/${encodeURIComponent(nodeOf(row))}/${seqOf(row)}/body${logOf(row)}`);
  const signature = answer.headers.get("piperoll-signature");
  if (!signature)
    return h(
      "p",
      { class: "error" },
      `${nodeOf(row)} did not return the entry: the node does not answer, or no longer has the entry.`,
    );
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const text = new TextDecoder().decode(bytes);
  return [
    h(
      "p",
      { class: "hint" },
      `${bytes.length} bytes, exactly as ${nodeOf(row)} stored ` +
        `and signed them. Invisible characters are shown as \\u{…}.`,
    ),
    h("pre", { tabindex: 0 }, visible(text)),
    h("h3", {}, "Signature (HMAC-SHA-256)"),
    h("pre", {}, signature),
    h(
      "div",
      { class: "button-group" },
      h("button", { type: "button", onclick: () => copy(text, "Entry") }, "Copy entry"),
      h(
        "button",
        { type: "button", onclick: () => save(new Blob([bytes]), `${placeOf(row).replace("/", "-")}.json`) },
        "Download bytes",
      ),
    ),
  ];
}
