// The filter bar: the filter as text and as chips, the time range, and the order. All of them always agree.

import { freshId, h, put, visible } from "../lib/dom.js";
import { negate, remove, terms } from "../lib/filter.js";
import { RANGES } from "../lib/state.js";
import { rangeDialog } from "./range-dialog.js";
import { Suggestions } from "./suggest.js";

/** The bar. `change(part of the state)` runs a new query; `actions` are buttons next to the chips. */
export class FilterBar {
  #id = freshId("filter");
  #input = h("input", {
    id: this.#id,
    type: "text",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: 'user:alice action:auth.* -outcome:success ip:10.0.0.0/8 "free text"',
    "aria-describedby": `${this.#id}-error`,
  });
  #range = h("select", { "aria-label": "Time range" });
  #order = orderSelect();
  #axis = axisSelect();
  #error = h("div", { id: `${this.#id}-error`, class: "filter-error", role: "alert" });
  #chips = h("ul", { class: "chips", "aria-label": "Conditions" });
  #change;
  /** State of the view that the bar shows. */
  #state = null;

  constructor({ change, actions }) {
    this.#change = change;
    const label = h("label", { for: this.#id, class: "visually-hidden" }, "Filter");
    const box = h("div", { class: "filter-input" }, label, this.#input);
    const submit = () => change({ filter: this.#input.value.trim() });
    new Suggestions(this.#input, box, { context: () => ({ from: this.#state.from, to: this.#state.to }), submit });
    this.#range.addEventListener("change", () => this.#onRange());
    this.#axis.addEventListener("change", () => change({ axis: this.#axis.value }));
    this.#order.addEventListener("change", () => change({ order: this.#order.value }));
    const search = h("button", { type: "button", class: "primary", onclick: submit }, "Search");
    this.element = h(
      "div",
      { role: "search", "aria-label": "Filter" },
      h("div", { class: "filter-bar" }, box, this.#range, this.#order, this.#axis, search),
      this.#error,
      h("div", { class: "filter-toolbar" }, this.#chips, h("div", { class: "actions" }, actions)),
    );
  }

  focus() {
    this.#input.focus();
    this.#input.select();
  }

  /** Shows the state of a view. While the user is typing the same filter, the text and its caret are left alone. */
  show(state) {
    this.#state = state;
    const isTyped = document.activeElement === this.#input && this.#input.value.trim() === state.filter;
    if (!isTyped) this.#input.value = state.filter;
    this.#order.value = state.order;
    this.#axis.value = state.axis;
    this.#drawRange();
    put(this.#error);
    this.#input.removeAttribute("aria-invalid");
    this.#drawChips();
  }

  /** Shows the server's error message, which contains the filter and marks the position of the mistake. */
  fail(problem) {
    this.#input.setAttribute("aria-invalid", "true");
    put(this.#error, h("pre", { class: "error" }, problem.message.split("\n").map(visible).join("\n")));
  }

  #onRange() {
    if (this.#range.value !== "custom") {
      this.#change({ from: this.#range.value, to: "" });
      return;
    }
    rangeDialog(this.#state, { apply: (range) => this.#change(range), closed: () => this.#drawRange() });
  }

  #drawRange() {
    const { from, to } = this.#state;
    const isPreset = RANGES.some(([preset]) => preset === from) && !to;
    put(
      this.#range,
      RANGES.map(([preset, words]) => h("option", { value: preset }, words)),
      !isPreset && h("option", { value: "this" }, `${from} to ${to || "now"}`),
      h("option", { value: "custom" }, "Custom range…"),
    );
    this.#range.value = isPreset ? from : "this";
  }

  /** Renders the chips. The focus remains at its position among the buttons, or moves to the filter. */
  #drawChips() {
    const buttons = () => [...this.#chips.querySelectorAll("button")];
    const focused = buttons().indexOf(/** @type {HTMLButtonElement} */ (document.activeElement));
    const { filter } = this.#state;
    put(
      this.#chips,
      terms(filter).map((condition, index) =>
        chip(
          condition,
          () => this.#change({ filter: negate(this.#state.filter, index) }),
          () => this.#change({ filter: remove(this.#state.filter, index) }),
        ),
      ),
    );
    if (focused >= 0) (buttons()[focused] ?? this.#input).focus();
  }
}

const orderSelect = () =>
  h(
    "select",
    { "aria-label": "Order" },
    h("option", { value: "desc" }, "Newest first"),
    h("option", { value: "asc" }, "Oldest first"),
  );

const axisSelect = () =>
  h(
    "select",
    {
      "aria-label": "Time",
      title: "The time to show. Range, order and completeness always refer to the recorded time.",
    },
    h("option", { value: "recorded" }, "Time recorded"),
    h("option", { value: "occurred" }, "Time occurred"),
  );

/** Renders a condition as a chip: a click on its text negates it, and a button removes it. */
function chip(condition, onNegate, onRemove) {
  const words = chipText(condition);
  return h(
    "li",
    { class: condition.negated ? "negated" : null },
    h("button", { type: "button", title: "Negate", onclick: onNegate }, words),
    h("button", { type: "button", class: "remove", "aria-label": `Remove ${words}`, onclick: onRemove }, "×"),
  );
}

function chipText({ negated, key, value }) {
  const name = key && key !== "is" ? `${key} ` : "";
  return visible(`${negated ? "not " : ""}${name}${value}`);
}
