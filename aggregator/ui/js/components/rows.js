// The table of entries. One row is selected at a time, and a click on a value filters by it.

import { h, put } from "../lib/dom.js";
import { parts, zoneLabel } from "../lib/time.js";
import { isMissing } from "./node-words.js";
import { uncertainPairs, uncertainRows } from "./order.js";
import { keyOf } from "./row.js";
import { COLUMNS, renderRow, shownTime } from "./table-row.js";

/** Maximum number of rows in live mode; beyond it the oldest are removed. */
const SHOWN_MAX = 1_000;

/** The table. `open(row)` opens one row, `filter(key, value, exclude)` adds a condition. */
export class RowTable {
  #open;
  #filter;
  /**
   * Items in the order of display: rows, and messages about a node.
   * @type {(import("./table-row.js").Item & { message?: string })[]}
   */
  #items = [];
  /** How much the clocks of the nodes may differ, in milliseconds; null if it is not known. */
  #uncertainty = null;
  #order = "desc";
  /** Key of the selected row. */
  #selected = "";
  /** The time to show, "recorded" or "occurred". */
  #axis = "recorded";
  #emptyText = "Querying all nodes…";
  #timeHead = h("th", { scope: "col", "aria-sort": "descending" });
  #body = h("tbody", { onkeydown: alongRow });

  constructor({ open, filter }) {
    this.#open = open;
    this.#filter = filter;
    const caption = h("caption", { class: "visually-hidden" }, "Entries");
    const names = ["Node", "Actor", "Action", "Entity", "IP", "Outcome", "Integrity"];
    const heads = names.map((name) => h("th", { scope: "col" }, name));
    const head = h("thead", {}, h("tr", {}, this.#timeHead, heads));
    this.element = h("div", { class: "table-container entry-table" }, h("table", {}, caption, head, this.#body));
  }

  /** Shows a page; returns the number of pairs of rows whose order is uncertain. */
  show(rows, envelope, order, axis) {
    this.#axis = axis;
    this.#uncertainty = envelope.order_uncertainty_ms;
    this.#order = order;
    this.#items = rows.map((row) => ({ row }));
    this.#emptyText = emptyWords(envelope);
    if (!rows.some((row) => keyOf(row) === this.#selected)) this.#selected = rows.length > 0 ? keyOf(rows[0]) : "";
    this.redraw();
    return uncertainPairs(rows, this.#uncertainty).length;
  }

  /** Adds new items at the top: rows, or messages about a node. Returns how many items were removed. */
  prepend(items) {
    const known = new Set(this.rows().map(keyOf));
    const added = items.filter((item) => item.message || !known.has(keyOf(item.row)));
    const all = [
      ...added.map((item) => ({ ...item, isNew: true })).reverse(),
      ...this.#items.map((item) => ({ ...item, isNew: false })),
    ];
    this.#items = all.slice(0, SHOWN_MAX);
    this.redraw();
    return all.length - this.#items.length;
  }

  /** Removes all rows, and shows a message that says why. */
  clear(words) {
    this.#items = [];
    this.#emptyText = words;
    this.redraw();
  }

  /** Renders the table again, for example in another time zone. The focus remains on its row. */
  redraw() {
    this.#timeHead.textContent = `${this.#axis === "occurred" ? "Occurred" : "Time"} (${zoneLabel()})`;
    this.#timeHead.setAttribute("aria-sort", this.#order === "desc" ? "descending" : "ascending");
    const lines = this.#lines();
    if (lines.length === 0)
      lines.push(h("tr", {}, h("td", { colspan: COLUMNS, class: "empty-state" }, this.#emptyText)));
    const focused = this.#focusedEntry();
    put(this.#body, lines);
    if (!focused) return;
    const line = this.#body.querySelector(`tr[data-entry="${CSS.escape(focused)}"]`);
    line?.querySelector("button.row-link").focus({ preventScroll: true });
  }

  /** Returns the rows of the table, without messages. */
  rows() {
    return this.#items.filter((item) => !item.message).map((item) => item.row);
  }

  /** Returns the selected row. */
  selectedRow() {
    return this.rows().find((row) => keyOf(row) === this.#selected);
  }

  /** Selects the row with a key, and moves the focus to it unless `focus` is false. */
  select(key, { focus = true } = {}) {
    this.#selected = key;
    for (const line of this.#body.querySelectorAll("tr[data-entry]")) {
      const isSelected = line.dataset.key === key;
      if (isSelected) line.setAttribute("aria-selected", "true");
      else line.removeAttribute("aria-selected");
      const link = line.querySelector("button.row-link");
      link.tabIndex = isSelected ? 0 : -1;
      if (isSelected && focus) {
        link.focus({ preventScroll: true });
        line.scrollIntoView({ block: "nearest" });
      }
    }
  }

  /** Moves the selection by some rows; returns the selected row. */
  move(by) {
    const rows = this.rows();
    const at = rows.findIndex((row) => keyOf(row) === this.#selected);
    const next = rows[Math.min(rows.length - 1, Math.max(0, at + by))];
    if (next) this.select(keyOf(next));
    return next;
  }

  /** Renders all items, each day below a header. */
  #lines() {
    const view = {
      axis: this.#axis,
      selected: this.#selected,
      uncertain: uncertainRows(this.rows(), this.#uncertainty),
      open: this.#open,
      filter: this.#filter,
    };
    const lines = [];
    let day = "";
    for (const item of this.#items) {
      if (item.message) {
        lines.push(h("tr", { class: "status-row" }, h("td", { colspan: COLUMNS }, item.message)));
        continue;
      }
      const time = shownTime(item.row, this.#axis);
      const at = time ? parts(time) : null;
      if (at && at.day !== day) {
        day = at.day;
        lines.push(h("tr", { class: "day-header" }, h("th", { colspan: COLUMNS, scope: "colgroup" }, day)));
      }
      lines.push(renderRow(item, at, view));
    }
    return lines;
  }

  #focusedEntry() {
    const { activeElement } = document;
    return this.#body.contains(activeElement) ? activeElement.closest("tr")?.dataset.entry : null;
  }
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
