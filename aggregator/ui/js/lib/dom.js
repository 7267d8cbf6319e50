// Creates all elements. Text becomes text nodes, so nothing in an entry can become markup. The page's policy (trusted
// types) makes a browser refuse anything else.

const SVG = "http://www.w3.org/2000/svg";

/** Makes an element. Attributes beginning with `on` are listeners; `null`, `false` and `undefined` are left out. */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG elements. */
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

// Characters that would reorder, hide or fake the text around them: controls, line ends, bidirectional marks, and
// invisible characters.
const DECEIVING = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}\p{Default_Ignorable_Code_Point}\u2800]/gu;

/** Text of an entry, with invisible characters shown as their code points. */
export function visible(text) {
  return String(text).replace(DECEIVING, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

/** The same for text of several lines. */
export const visibleLines = (text) => String(text).split("\n").map(visible).join("\n");

/** Returns the value if it is a non-empty text: an entry that fails verification can contain anything. */
export const textOr = (value, otherwise = null) => (typeof value === "string" && value !== "" ? value : otherwise);

/** Characters shown in one cell; the drawer shows all of them. */
const CELL_CHARACTERS_MAX = 160;

/** Text of an entry, shortened. */
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
  polite ??= document.body.appendChild(h("div", { class: "unseen", "aria-live": "polite", role: "status" }));
  assertive ??= document.body.appendChild(h("div", { class: "unseen", "aria-live": "assertive", role: "alert" }));
  (urgent ? assertive : polite).textContent = text;
}

let notices;
/** Shows a message for a while, and announces it to screen readers. */
export function notice(text, bad = false) {
  notices ??= document.body.appendChild(h("div", { class: "notices" }));
  const line = h("p", { class: bad ? "banner bad" : "banner" }, visible(text));
  notices.append(line);
  setTimeout(() => line.remove(), NOTICE_MS);
  announce(text, bad);
}
const NOTICE_MS = 8_000;

/** Copies a text, and shows a message about it. */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    notice(`${what} copied`);
  } catch {
    notice(`${what} cannot be copied: the browser does not allow it`, true);
  }
}

/** Downloads bytes that are in memory already; returns a link for browsers that ask before they save a second file. */
export function save(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name }, "Save again");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), SAVE_AGAIN_MS);
  return link;
}
/** How long a file can be saved again; after that the browser may release its bytes. */
const SAVE_AGAIN_MS = 600_000;
