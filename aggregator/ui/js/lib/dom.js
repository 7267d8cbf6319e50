// Creates all DOM elements. Text becomes text nodes, so nothing in an entry can become markup. The content security
// policy of the page (trusted types) makes browsers reject anything else.

const SVG = "http://www.w3.org/2000/svg";

/** Creates an element. Attributes named `on…` are event listeners; `null`, `false` and `undefined` are omitted. */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** Creates an SVG element, with the same arguments as `h`. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** Replaces the children of an element. */
export function put(element, ...children) {
  element.replaceChildren(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

// Characters that could reorder, hide or spoof the text around them: control characters, line ends, bidirectional marks
// and invisible characters.
const DECEIVING = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}\p{Default_Ignorable_Code_Point}\u2800]/gu;

/** Returns a text with its invisible characters replaced by their code points. */
export function visible(text) {
  return String(text).replace(DECEIVING, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

/** Does the same as `visible`, but keeps line breaks. */
export const visibleLines = (text) => String(text).split("\n").map(visible).join("\n");

/** Returns the value if it is a non-empty string: an entry that fails verification can contain anything. */
export const textOr = (value, otherwise = null) => (typeof value === "string" && value !== "" ? value : otherwise);

/** Maximum number of characters in a table cell; the drawer shows the full text. */
const CELL_CHARACTERS_MAX = 160;

/** Returns a text of an entry, truncated for display. */
export function short(text, most = CELL_CHARACTERS_MAX) {
  const shown = visible(text);
  return shown.length > most ? `${shown.slice(0, most)}…` : shown;
}

/** Formats a number, for example 12,345. */
export function digits(number) {
  return Number(number).toLocaleString("en");
}

let used = 0;
/** Returns an id that is unique on the page. */
export function freshId(prefix) {
  used += 1;
  return `${prefix}-${used}`;
}

let polite;
let assertive;
/** Announces a text to screen readers. */
export function announce(text, urgent = false) {
  polite ??= document.body.appendChild(h("div", { class: "visually-hidden", "aria-live": "polite", role: "status" }));
  assertive ??= document.body.appendChild(
    h("div", { class: "visually-hidden", "aria-live": "assertive", role: "alert" }),
  );
  (urgent ? assertive : polite).textContent = text;
}

let toasts;
/** Shows a message for a few seconds, and announces it to screen readers. */
export function notice(text, bad = false) {
  toasts ??= document.body.appendChild(h("div", { class: "toasts" }));
  const toast = h("p", { class: bad ? "toast danger" : "toast" }, visible(text));
  toasts.append(toast);
  setTimeout(() => toast.remove(), NOTICE_MS);
  announce(text, bad);
}
const NOTICE_MS = 8_000;

/** Copies a text to the clipboard, and shows whether that succeeded. */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    notice(`${what} copied`);
  } catch {
    notice(`${what} not copied: the browser does not allow it`, true);
  }
}

/** Downloads a blob; returns a link to save it again, for browsers that ask before they save a second file. */
export function save(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name }, "Save again");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), SAVE_AGAIN_MS);
  return link;
}
/** How long that link works; after that the browser may release the bytes. */
const SAVE_AGAIN_MS = 600_000;
