// Suggests keys and existing values while the user types a filter. (WAI-ARIA Authoring Practices, combobox pattern)

import { get, getCounts, parameters } from "../lib/api.js";
import { digits, freshId, h, put, short } from "../lib/dom.js";
import { term, terms, unquote, wordAt } from "../lib/filter.js";

const LISTED = 12;
const VALUES_ASKED = 500;
const PAUSE_MS = 150;

/**
 * One suggestion: the text that replaces a range of the filter, and how the list shows it.
 * @typedef {{ from: number, to: number, text: string, label: string, detail: string }} Suggestion
 */

/** Suggestions for an input inside `box`. `context()` returns `{from, to}`; `submit()` runs the filter. */
export class Suggestions {
  #input;
  #context;
  #submit;
  #id = freshId("suggestions");
  #list = h("ul", { id: this.#id, class: "suggestions", role: "listbox", "aria-label": "Suggestions", hidden: true });
  /** Keys and states that filters can use; null until the server has been asked for them. */
  #vocabulary = null;
  /** Values of a field with their counts, by the query that counts them. @type {Map<string, Promise<any[]>>} */
  #values = new Map();
  /** @type {Suggestion[]} */
  #shown = [];
  /** Index of the active suggestion, or -1. */
  #active = -1;
  /** Number of the latest search; the results of all others are outdated. */
  #search = 0;
  #timer = 0;

  constructor(input, box, { context, submit }) {
    this.#input = input;
    this.#context = context;
    this.#submit = submit;
    box.append(this.#list);
    for (const [name, value] of Object.entries({
      role: "combobox",
      "aria-autocomplete": "list",
      "aria-expanded": "false",
      "aria-controls": this.#id,
    }))
      input.setAttribute(name, value);
    input.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#refresh(), PAUSE_MS);
    });
    input.addEventListener("blur", () => this.#close());
    input.addEventListener("keydown", (event) => this.#onKeydown(event));
  }

  async #refresh() {
    this.#search += 1;
    const mine = this.#search;
    const found = await this.#find();
    // Meanwhile the user has typed more, picked a suggestion, or left the field.
    if (mine !== this.#search || document.activeElement !== this.#input) return;
    this.#shown = found.slice(0, LISTED);
    this.#activate(-1);
  }

  #close() {
    this.#search += 1;
    this.#shown = [];
    this.#activate(-1);
  }

  /** Returns all suggestions for the text at the caret. @returns {Promise<Suggestion[]>} */
  async #find() {
    this.#vocabulary ??= await get("/filter").catch(() => ({ keys: [], is: [] }));
    const { keys, is } = this.#vocabulary;
    const { value: filter, selectionStart: caret } = this.#input;
    const word = wordAt(filter, caret);
    if (!word) return suggestKeys(keys, "", { from: caret, to: caret });
    const from = word.from + (word.negated ? 1 : 0);
    if (!word.key) {
      const typed = filter.slice(word.from, caret).replace(/^-/, "");
      return suggestKeys(keys, typed, { from, to: word.to });
    }
    const range = valueAround(filter, from + word.key.length + 1, word.to, caret);
    const typed = unquote(filter.slice(range.from, caret)).replace(/^"/, "");
    if (word.key === "is") return suggestStates(is, typed, range);
    const values = await this.#valuesOf(word.key, otherConditions(filter, word));
    return suggestValues(values, word.key, typed, range);
  }

  /** Returns the values of a field within the range of time and the other conditions, with their counts. */
  async #valuesOf(key, filter) {
    const field = this.#vocabulary.keys.find((one) => one.key === key)?.counted_by;
    if (!field) return [];
    const query = parameters({ ...this.#context(), filter, by: field, top: VALUES_ASKED });
    if (!this.#values.has(query)) {
      const found = getCounts(`/stats?${query}`).then((answer) => answer.stats.by[0]?.top ?? []);
      this.#values.set(query, found);
      // Do not cache a failure.
      found.catch(() => this.#values.delete(query));
    }
    return this.#values.get(query).catch(() => []);
  }

  /** Makes a suggestion the active one, -1 for none, and renders the list. */
  #activate(index) {
    this.#active = index;
    this.#list.hidden = this.#shown.length === 0;
    this.#input.setAttribute("aria-expanded", String(!this.#list.hidden));
    put(
      this.#list,
      this.#shown.map((suggestion, at) => this.#option(suggestion, at)),
    );
    if (index >= 0) this.#input.setAttribute("aria-activedescendant", `${this.#id}-${index}`);
    else this.#input.removeAttribute("aria-activedescendant");
  }

  #option({ label, detail }, index) {
    return h(
      "li",
      {
        role: "option",
        id: `${this.#id}-${index}`,
        "aria-selected": String(index === this.#active),
        onpointerdown: (event) => {
          event.preventDefault();
          this.#accept(index);
        },
      },
      h("span", {}, label),
      h("span", { class: "suggestion-detail" }, detail),
    );
  }

  /** Puts a suggestion into the filter, and suggests what can follow it. */
  #accept(index) {
    const { filter, caret } = complete(this.#input.value, this.#shown[index]);
    this.#input.value = filter;
    this.#input.setSelectionRange(caret, caret);
    this.#refresh();
  }

  #run() {
    clearTimeout(this.#timer);
    this.#close();
    this.#submit();
  }

  #onKeydown(event) {
    const isOpen = !this.#list.hidden;
    const isActive = isOpen && this.#active >= 0;
    switch (event.key) {
      case "ArrowDown":
        event.preventDefault();
        if (isOpen) this.#activate(Math.min(this.#shown.length - 1, this.#active + 1));
        else this.#refresh();
        break;
      case "ArrowUp":
        if (!isOpen) break;
        event.preventDefault();
        this.#activate(Math.max(-1, this.#active - 1));
        break;
      case "Escape":
        if (isOpen) stop(event, () => this.#close());
        else this.#input.blur();
        break;
      case "Tab":
        if (isActive) stop(event, () => this.#accept(this.#active));
        break;
      case "Enter":
        stop(event, () => (isActive ? this.#accept(this.#active) : this.#run()));
        break;
    }
  }
}

function stop(event, then) {
  event.preventDefault();
  event.stopPropagation();
  then();
}

/** Suggests the keys that start with a text. @returns {Suggestion[]} */
export function suggestKeys(keys, typed, range) {
  const start = typed.toLowerCase();
  return keys
    .filter(({ key }) => key.startsWith(start))
    .map(({ key, about }) => ({ ...range, text: `${key}:`, label: `${key}:`, detail: about }));
}

/** Suggests the values of `is:` that start with a text. @returns {Suggestion[]} */
export function suggestStates(states, typed, range) {
  const start = typed.toLowerCase();
  return states
    .filter((state) => state.startsWith(start))
    .map((state) => ({ ...range, text: state, label: state, detail: "" }));
}

/** Suggests the values of a key that contain a text, with their counts. @returns {Suggestion[]} */
export function suggestValues(values, key, typed, range) {
  const part = typed.toLowerCase();
  return values
    .filter(({ value }) => value.toLowerCase().includes(part))
    .map(({ value, count }) => ({
      ...range,
      text: term(key, value).slice(key.length + 1),
      label: short(value, 60),
      detail: digits(count),
    }));
}

/** Returns the conditions that narrow the values of a word: all others, unless it is inside alternatives or a group. */
export function otherConditions(filter, word) {
  const conditions = terms(filter);
  const isCondition = conditions.some((one) => one.from === word.from && one.to === word.to);
  const others = isCondition ? conditions.filter((one) => one.from !== word.from) : [];
  return others.map((one) => one.text).join(" ");
}

/** Returns the filter with a suggestion in place of the text that it completes, and the position of the caret. */
export function complete(filter, { from, to, text }) {
  const end = text.endsWith(":") || filter[to] === "," ? "" : " ";
  const rest = filter.slice(to).replace(/^\s+/, "");
  return { filter: filter.slice(0, from) + text + end + rest, caret: from + text.length + end.length };
}

/** Returns the range of the value at the caret in a list that is separated by commas outside quotes. */
function valueAround(text, from, to, caret) {
  let [begin, end, quoted] = [from, to, false];
  for (let at = from; at < to; at += 1) {
    if (text[at] === "\\" && quoted) at += 1;
    else if (text[at] === '"') quoted = !quoted;
    else if (text[at] === "," && !quoted) {
      if (at >= caret) {
        end = at;
        break;
      }
      begin = at + 1;
    }
  }
  return { from: begin, to: end };
}
