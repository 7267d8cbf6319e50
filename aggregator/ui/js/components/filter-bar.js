// The filter bar: the filter as text and as chips, the time range, and the order. All of them always agree.

import { dialog } from "./dialog.js";
import { freshId, h, put, visible } from "../lib/dom.js";
import { negate, remove, terms } from "../lib/filter.js";
import { EVERYTHING, RANGES } from "../lib/state.js";
import { suggest } from "./suggest.js";

/** Creates the bar. `change(part of the state)` runs a new query; `actions` are buttons next to the chips. */
export function filterBar({ change, actions }) {
  const id = freshId("filter");
  const input = h("input", {
    id,
    type: "text",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: 'user:alice action:auth.* -outcome:success ip:10.0.0.0/8 "free text"',
    "aria-describedby": `${id}-error`,
  });
  const box = h("div", { class: "filter-input" }, h("label", { for: id, class: "visually-hidden" }, "Filter"), input);
  const range = h("select", { "aria-label": "Time range" });
  const order = h(
    "select",
    { "aria-label": "Order" },
    h("option", { value: "desc" }, "Newest first"),
    h("option", { value: "asc" }, "Oldest first"),
  );
  const axis = h(
    "select",
    {
      "aria-label": "Time",
      title: "The time to show. Range, order and completeness always refer to the recorded time.",
    },
    h("option", { value: "recorded" }, "Time recorded"),
    h("option", { value: "occurred" }, "Time occurred"),
  );
  const error = h("div", { id: `${id}-error`, class: "filter-error", role: "alert" });
  const chips = h("ul", { class: "chips", "aria-label": "Conditions" });
  let state = null;

  const submit = () => change({ filter: input.value.trim() });
  suggest(input, box, { context: () => ({ from: state.from, to: state.to }), submit });
  range.addEventListener("change", () =>
    range.value === "custom" ? customRange() : change({ from: range.value, to: "" }),
  );
  axis.addEventListener("change", () => change({ axis: axis.value }));
  order.addEventListener("change", () => change({ order: order.value }));

  function customRange() {
    const [from, to] = ["from", "to"].map((name) =>
      h("input", {
        type: "text",
        id: freshId(name),
        value: name === "from" ? state.from : state.to || "now",
        spellcheck: "false",
        autofocus: name === "from",
      }),
    );
    const closed = () => drawRange();
    dialog(
      "Custom range",
      [
        h("p", { class: "hint" }, "An age (24h, 7d), a day (2026-04-15), or a time in UTC (2026-04-15T08:00:00Z)."),
        h("label", { for: from.id }, "From"),
        from,
        h("label", { for: to.id }, "To (exclusive)"),
        to,
      ],
      [
        {
          label: "Apply",
          primary: true,
          run: () =>
            change({ from: from.value.trim() || EVERYTHING, to: to.value.trim() === "now" ? "" : to.value.trim() }),
        },
        { label: "Cancel" },
      ],
      { closed },
    );
  }

  function drawRange() {
    const preset = RANGES.some(([from]) => from === state.from) && !state.to;
    put(
      range,
      RANGES.map(([from, words]) => h("option", { value: from }, words)),
      !preset && h("option", { value: "this" }, `${state.from} to ${state.to || "now"}`),
      h("option", { value: "custom" }, "Custom range…"),
    );
    range.value = preset ? state.from : "this";
  }

  function chip(term, index) {
    const words = visible(
      term.key === "is"
        ? `${term.negated ? "not " : ""}${term.value}`
        : `${term.negated ? "not " : ""}${term.key ? `${term.key} ` : ""}${term.value}`,
    );
    return h(
      "li",
      { class: term.negated ? "negated" : null },
      h(
        "button",
        { type: "button", title: "Negate", onclick: () => change({ filter: negate(state.filter, index) }) },
        words,
      ),
      h(
        "button",
        {
          type: "button",
          class: "remove",
          "aria-label": `Remove ${words}`,
          onclick: () => change({ filter: remove(state.filter, index) }),
        },
        "×",
      ),
    );
  }

  return {
    element: h(
      "div",
      { role: "search", "aria-label": "Filter" },
      h(
        "div",
        { class: "filter-bar" },
        box,
        range,
        order,
        axis,
        h("button", { type: "button", class: "primary", onclick: submit }, "Search"),
      ),
      error,
      h("div", { class: "filter-toolbar" }, chips, h("div", { class: "actions" }, actions)),
    ),
    focus() {
      input.focus();
      input.select();
    },
    show(next) {
      state = next;
      if (document.activeElement !== input || input.value.trim() !== next.filter) input.value = next.filter;
      order.value = next.order;
      axis.value = next.axis;
      drawRange();
      put(error);
      input.removeAttribute("aria-invalid");
      const focused = chips.contains(document.activeElement)
        ? [...chips.querySelectorAll("button")].indexOf(document.activeElement)
        : -1;
      put(chips, terms(next.filter).map(chip));
      if (focused >= 0) (chips.querySelectorAll("button")[focused] ?? input).focus();
    },
    /** Shows the server's error message, which contains the filter and marks the position of the mistake. */
    fail(problem) {
      input.setAttribute("aria-invalid", "true");
      put(error, h("pre", { class: "error" }, problem.message.split("\n").map(visible).join("\n")));
    },
  };
}
