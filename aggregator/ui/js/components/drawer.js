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
 * Creates the drawer. `filter(key, value, exclude)` adds a condition, `step(by)` selects and returns a neighbouring
 * row, `moved(row)` is called when the drawer shows that row, and `closed()` when it closes.
 */
export function drawer({ filter, step, moved, closed }) {
  let element = null;
  let back = null;
  let tab = "summary";
  let envelope = null;

  function close() {
    if (!element) return;
    element.remove();
    element = null;
    back?.focus?.();
    closed();
  }

  function open(row, answer) {
    envelope = answer;
    if (!element) {
      back = document.activeElement;
      element = h("section", {
        class: "drawer",
        role: "dialog",
        "aria-label": "Entry",
        tabindex: -1,
        onkeydown: keys,
      });
      document.body.append(element);
    }
    draw(row);
    element.focus();
  }

  function keys(event) {
    if (event.key === "Escape") {
      event.stopPropagation();
      close();
    }
  }

  function move(by) {
    const next = step(by);
    if (next) {
      draw(next);
      moved(next);
    }
    element.focus();
  }

  function draw(row) {
    const panel = h("div", { role: "tabpanel", id: "drawer-panel", "aria-labelledby": `tab-${tab}`, tabindex: 0 });
    const buttons = TABS.map(([name, label]) =>
      h(
        "button",
        {
          type: "button",
          role: "tab",
          id: `tab-${name}`,
          "aria-selected": String(name === tab),
          "aria-controls": "drawer-panel",
          tabindex: name === tab ? 0 : -1,
          onclick: () => {
            tab = name;
            draw(row);
            element.querySelector(`#tab-${name}`).focus();
          },
        },
        label,
      ),
    );
    const list = h("div", { class: "tabs", role: "tablist", onkeydown: (event) => arrows(event, buttons) }, buttons);
    put(
      element,
      h(
        "header",
        {},
        h("h2", {}, headline(row)),
        h(
          "button",
          { type: "button", "aria-label": "Previous entry", title: "Previous ([)", onclick: () => move(-1) },
          "‹",
        ),
        h("button", { type: "button", "aria-label": "Next entry", title: "Next (])", onclick: () => move(1) }, "›"),
        h("button", { type: "button", "aria-label": "Close", title: "Close (Esc)", onclick: close }, "×"),
      ),
      h(
        "p",
        {},
        h("code", {}, visible(placeOf(row))),
        " ",
        row.erased || row.withheld ? null : outcomeBadge(entryOf(row).outcome),
        " ",
        integrityBadges(row),
      ),
      list,
      panel,
    );
    const [, , fill] = TABS.find(([name]) => name === tab);
    Promise.resolve(fill(row, { filter, envelope }))
      .then((content) => put(panel, content))
      .catch((error) => put(panel, h("p", { class: "error" }, error.message)));
  }

  return { open, close, move, isOpen: () => element !== null };
}

function arrows(event, buttons) {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  const at = buttons.indexOf(document.activeElement);
  buttons[(at + by + buttons.length) % buttons.length].click();
  event.preventDefault();
}
