// Elements are made here and nowhere else: text becomes text nodes, so nothing that an entry says can become markup. The page's
// policy (trusted types) makes a browser refuse anything else.

const SVG = "http://www.w3.org/2000/svg";

/** Makes an element. Attributes beginning with `on` are listeners; `null`, `false` and `undefined` are left out. */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for drawings. */
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
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Replaces what an element holds. */
export function put(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// What would reorder, hide or fake its surroundings: controls, line ends, bidirectional marks, and whatever takes no room.
const DECEIVING = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}\p{Default_Ignorable_Code_Point}\u2800]/gu;

/** Text of an entry, with what cannot be seen made visible as its code point. */
export function visible(text) {
  return String(text).replace(DECEIVING, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

/** The same for text of several lines. */
export const visibleLines = (text) => String(text).split("\n").map(visible).join("\n");

/** A text, or nothing: an entry that does not fit its signature can hold anything anywhere. */
export const textOr = (value, otherwise = null) => (typeof value === "string" && value !== "" ? value : otherwise);

/** Characters of one cell; all of it is in the drawer. */
const CELL_CHARACTERS_MAX = 160;

/** Text of an entry in little room. */
export function short(text, most = CELL_CHARACTERS_MAX) {
  const shown = visible(text);
  return shown.length > most ? `${shown.slice(0, most)}…` : shown;
}

/** 12,345 */
export function digits(number) {
  return Number(number).toLocaleString("en");
}

let used = 0;
/** An id that nothing else on the page has. */
export function freshId(prefix) {
  used += 1;
  return `${prefix}-${used}`;
}

let polite;
let assertive;
/** Tells whoever listens instead of looking. */
export function announce(text, urgent = false) {
  polite ??= document.body.appendChild(h("div", { class: "unseen", "aria-live": "polite", role: "status" }));
  assertive ??= document.body.appendChild(h("div", { class: "unseen", "aria-live": "assertive", role: "alert" }));
  (urgent ? assertive : polite).textContent = text;
}

let notices;
/** Says something for a while, to whoever looks and to whoever listens. */
export function notice(text, bad = false) {
  notices ??= document.body.appendChild(h("div", { class: "notices" }));
  const line = h("p", { class: bad ? "banner bad" : "banner" }, visible(text));
  notices.append(line);
  setTimeout(() => line.remove(), NOTICE_MS);
  announce(text, bad);
}
const NOTICE_MS = 8_000;

/** Copies, and says so. */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    notice(`${what} copied`);
  } catch {
    notice(`${what} cannot be copied: the browser does not allow it`, true);
  }
}

/** A download of bytes that are here already; the link is for a browser that asks before it saves a second file. */
export function save(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name }, "Save again");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), SAVE_AGAIN_MS);
  return link;
}
/** As long as a file can be saved again; then the browser may forget its bytes. */
const SAVE_AGAIN_MS = 600_000;
