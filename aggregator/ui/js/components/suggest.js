// Suggests keys and existing values while the user types a filter. (WAI-ARIA Authoring Practices, combobox pattern)

import { get, getCounts, parameters } from "../lib/api.js";
import { digits, freshId, h, put, short } from "../lib/dom.js";
import { term, terms, unquote, wordAt } from "../lib/filter.js";

const LISTED = 12;
const VALUES_ASKED = 500;
const PAUSE_MS = 150;

/** Adds suggestions to an input inside `box`. `context()` returns `{from, to}`; `submit()` runs the filter. */
export function suggest(input, box, { context, submit }) {
  const id = freshId("suggestions");
  const list = h("ul", { id, class: "suggestions", role: "listbox", "aria-label": "Suggestions", hidden: true });
  box.append(list);
  for (const [name, value] of Object.entries({
    role: "combobox",
    "aria-autocomplete": "list",
    "aria-expanded": "false",
    "aria-controls": id,
  }))
    input.setAttribute(name, value);
  let words = null;
  let shown = [];
  let at = -1;
  let timer = 0;
  const known = new Map();

  async function valuesOf(key, filter) {
    const field = words.keys.find((one) => one.key === key)?.counted_by;
    if (!field) return [];
    const asked = parameters({ ...context(), filter, by: field, top: VALUES_ASKED });
    if (!known.has(asked)) {
      const found = getCounts(`/stats?${asked}`).then((answer) => answer.stats.by[0]?.top ?? []);
      known.set(asked, found);
      // Do not cache a failure.
      found.catch(() => known.delete(asked));
    }
    return known.get(asked).catch(() => []);
  }

  async function find() {
    words ??= await get("/filter").catch(() => ({ keys: [], is: [] }));
    const caret = input.selectionStart;
    const all = terms(input.value);
    const here = wordAt(input.value, caret);
    const typed = here ? input.value.slice(here.from, caret) : "";
    if (here && !here.key) {
      const start = typed.replace(/^-/, "").toLowerCase();
      return words.keys
        .filter((one) => one.key.startsWith(start))
        .map((one) => ({
          from: here.from + (here.negated ? 1 : 0),
          to: here.to,
          text: `${one.key}:`,
          words: `${one.key}:`,
          about: one.about,
        }));
    }
    if (here) {
      const from = here.from + (here.negated ? 1 : 0) + here.key.length + 1;
      const place = valueAround(input.value, from, here.to, caret);
      const begun = unquote(input.value.slice(place.from, caret)).replace(/^"/, "").toLowerCase();
      if (here.key === "is")
        return words.is
          .filter((word) => word.startsWith(begun))
          .map((word) => ({ ...place, text: word, words: word, about: "" }));
      // Inside alternatives and groups, the other conditions do not narrow the values.
      const alone = all.some((one) => one.from === here.from && one.to === here.to);
      const rest = alone
        ? all
            .filter((one) => one.from !== here.from)
            .map((one) => one.text)
            .join(" ")
        : "";
      const values = await valuesOf(here.key, rest);
      return values
        .filter(({ value: one }) => one.toLowerCase().includes(begun))
        .map(({ value: one, count }) => ({
          ...place,
          text: term(here.key, one).slice(here.key.length + 1),
          words: short(one, 60),
          about: digits(count),
        }));
    }
    return words.keys.map((one) => ({
      from: caret,
      to: caret,
      text: `${one.key}:`,
      words: `${one.key}:`,
      about: one.about,
    }));
  }

  let asked = 0;
  async function refresh() {
    asked += 1;
    const mine = asked;
    const found = await find();
    // Meanwhile the user has typed more, picked a suggestion, or left the field.
    if (mine !== asked || document.activeElement !== input) return;
    shown = found.slice(0, LISTED);
    at = -1;
    draw();
  }

  function draw() {
    list.hidden = shown.length === 0;
    input.setAttribute("aria-expanded", String(!list.hidden));
    put(
      list,
      shown.map((one, index) =>
        h(
          "li",
          {
            role: "option",
            id: `${id}-${index}`,
            "aria-selected": String(index === at),
            onpointerdown: (event) => {
              event.preventDefault();
              take(index);
            },
          },
          h("span", {}, one.words),
          h("span", { class: "suggestion-detail" }, one.about),
        ),
      ),
    );
    if (at >= 0) input.setAttribute("aria-activedescendant", `${id}-${at}`);
    else input.removeAttribute("aria-activedescendant");
  }

  function take(index) {
    const one = shown[index];
    const end = one.text.endsWith(":") || input.value[one.to] === "," ? "" : " ";
    const rest = input.value.slice(one.to).replace(/^\s+/, "");
    input.value = input.value.slice(0, one.from) + one.text + end + rest;
    const caret = one.from + one.text.length + end.length;
    input.setSelectionRange(caret, caret);
    refresh();
  }

  function close() {
    asked += 1;
    shown = [];
    at = -1;
    draw();
  }

  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(refresh, PAUSE_MS);
  });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const open = !list.hidden;
    if (event.key === "ArrowDown" && !open) refresh();
    else if (event.key === "ArrowDown") at = Math.min(shown.length - 1, at + 1);
    else if (event.key === "ArrowUp" && open) at = Math.max(-1, at - 1);
    else if (event.key === "Escape" && open) return stop(event, close);
    else if (event.key === "Escape") return input.blur();
    else if ((event.key === "Enter" || event.key === "Tab") && open && at >= 0) return stop(event, () => take(at));
    else if (event.key === "Enter")
      return stop(event, () => {
        clearTimeout(timer);
        close();
        submit();
      });
    else return undefined;
    event.preventDefault();
    if (open) draw();
    return undefined;
  });
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

function stop(event, then) {
  event.preventDefault();
  event.stopPropagation();
  then();
}
