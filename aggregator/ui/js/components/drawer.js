// The drawer, which shows one entry in full: its fields, changes, context, proof and bytes.

import { h, put, visible } from "../lib/dom.js";
import { headline, integrityBadges, outcomeBadge, entryOf, placeOf } from "./row.js";
import { summaryTab, changesTab, rawTab } from "./drawer-fields.js";
import { contextTab } from "./drawer-context.js";
import { proofTab } from "./drawer-proof.js";

/** Name, label, and function that renders the tab. @type {[string, string, (row: any, context: any) => any][]} */
const TABS = [
  ["summary", "Summary", summaryTab],
  ["changes", "Changes", changesTab],
  ["context", "Context", contextTab],
  ["proof", "Proof", proofTab],
  ["raw", "Raw bytes", rawTab],
];

/**
 * The drawer. `filter(key, value, exclude)` adds a condition, `step(by)` selects and returns a neighbouring row,
 * `moved(row)` is called when the drawer shows that row, and `closed()` when it closes.
 */
export class Drawer {
  #filter;
  #step;
  #moved;
  #closed;
  /** The drawer on the page; null while it is closed. */
  #element = null;
  /** Element that gets the focus back. */
  #returnFocus = null;
  /** Name of the selected tab. */
  #tab = "summary";
  /** Envelope of the answer that contains the row. */
  #envelope = null;

  constructor({ filter, step, moved, closed }) {
    this.#filter = filter;
    this.#step = step;
    this.#moved = moved;
    this.#closed = closed;
  }

  isOpen() {
    return this.#element !== null;
  }

  /** Shows a row of an answer, and opens the drawer if it is closed. */
  open(row, envelope) {
    this.#envelope = envelope;
    if (!this.#element) {
      this.#returnFocus = document.activeElement;
      this.#element = h("section", {
        class: "drawer",
        role: "dialog",
        "aria-label": "Entry",
        tabindex: -1,
        onkeydown: (event) => this.#onKeydown(event),
      });
      document.body.append(this.#element);
    }
    this.#draw(row);
    this.#element.focus();
  }

  close() {
    if (!this.#element) return;
    this.#element.remove();
    this.#element = null;
    this.#returnFocus?.focus?.();
    this.#closed();
  }

  /** Shows the row that is `by` rows below in the table, or above if negative. */
  move(by) {
    const next = this.#step(by);
    if (next) {
      this.#draw(next);
      this.#moved(next);
    }
    this.#element.focus();
  }

  #onKeydown(event) {
    if (event.key === "Escape") {
      event.stopPropagation();
      this.close();
    }
  }

  #draw(row) {
    const name = this.#tab;
    const panel = h("div", { role: "tabpanel", id: "drawer-panel", "aria-labelledby": `tab-${name}`, tabindex: 0 });
    const select = (tab) => {
      this.#tab = tab;
      this.#draw(row);
      this.#element.querySelector(`#tab-${tab}`).focus();
    };
    put(this.#element, this.#header(row), badges(row), tabList(name, select), panel);
    const [, , render] = TABS.find(([tab]) => tab === name);
    Promise.resolve(render(row, { filter: this.#filter, envelope: this.#envelope }))
      .then((content) => put(panel, content))
      .catch((error) => put(panel, h("p", { class: "error" }, error.message)));
  }

  #header(row) {
    const button = (label, title, sign, run) =>
      h("button", { type: "button", "aria-label": label, title, onclick: run }, sign);
    return h(
      "header",
      {},
      h("h2", {}, headline(row)),
      button("Previous entry", "Previous ([)", "‹", () => this.move(-1)),
      button("Next entry", "Next (])", "›", () => this.move(1)),
      button("Close", "Close (Esc)", "×", () => this.close()),
    );
  }
}

/** Renders the position of a row, and its outcome and integrity. */
function badges(row) {
  return h(
    "p",
    {},
    h("code", {}, visible(placeOf(row))),
    " ",
    row.erased || row.withheld ? null : outcomeBadge(entryOf(row).outcome),
    " ",
    integrityBadges(row),
  );
}

/** Renders the tabs, of which `current` is selected. `select(name)` selects another one. */
function tabList(current, select) {
  const buttons = TABS.map(([name, label]) =>
    h(
      "button",
      {
        type: "button",
        role: "tab",
        id: `tab-${name}`,
        "aria-selected": String(name === current),
        "aria-controls": "drawer-panel",
        tabindex: name === current ? 0 : -1,
        onclick: () => select(name),
      },
      label,
    ),
  );
  return h("div", { class: "tabs", role: "tablist", onkeydown: (event) => alongTabs(event, buttons) }, buttons);
}

/** Selects the previous or next tab. (WAI-ARIA Authoring Practices, tabs pattern) */
function alongTabs(event, buttons) {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  const at = buttons.indexOf(document.activeElement);
  buttons[(at + by + buttons.length) % buttons.length].click();
  event.preventDefault();
}
