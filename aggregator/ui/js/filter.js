// A filter is one string; chips, text and address show the same one. The server reads it; what is here only finds where one
// term ends and the next begins.

/** The terms of a filter: `{text, negated, key, value}`; of free text the key is empty. */
export function terms(filter) {
  const found = [];
  let at = 0;
  while (at < filter.length) {
    if (/\s/.test(filter[at])) {
      at += 1;
      continue;
    }
    const from = at;
    let quoted = false;
    while (at < filter.length && (quoted || !/\s/.test(filter[at]))) {
      if (filter[at] === "\\" && quoted) at += 1;
      else if (filter[at] === '"') quoted = !quoted;
      at += 1;
    }
    found.push({ ...read(filter.slice(from, at)), from, to: at });
  }
  return found;
}

function read(text) {
  const negated = text.startsWith("-") && text.length > 1;
  const rest = negated ? text.slice(1) : text;
  const colon = /^([a-z_]+):/.exec(rest);
  return { text, negated, key: colon ? colon[1] : "", value: colon ? rest.slice(colon[0].length) : rest };
}

const PLAIN = /^[^\s",:\\*-][^\s",\\*]*$/;

/** A value so that it means itself. */
export function quote(value) {
  const text = String(value);
  if (PLAIN.test(text)) return text;
  return `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}

/** A value as people read it. */
export function unquote(value) {
  return value.startsWith('"') && value.endsWith('"') && value.length > 1
    ? value.slice(1, -1).replaceAll('\\"', '"').replaceAll("\\\\", "\\")
    : value;
}

const join = (list) => list.map((term) => term.text).join(" ");

/** Adds a term, once; the opposite of it goes. */
export function add(filter, text) {
  const opposite = text.startsWith("-") ? text.slice(1) : `-${text}`;
  const rest = terms(filter).filter((term) => term.text !== text && term.text !== opposite);
  return `${join(rest)} ${text}`.trim();
}

/** An address or a range; other text that an address's place can hold means itself only in quotes. */
const ADDRESS = /^(\d{1,3}(\.\d{1,3}){3}|[0-9a-f]*:[0-9a-f:.]*)(\/\d{1,3})?$/i;

/** One condition, as text. */
export function term(key, value, negated = false) {
  const safe = key === "ip" && !ADDRESS.test(value) ? `"${String(value).replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"` : quote(value);
  return `${negated ? "-" : ""}${key ? `${key}:` : ""}${safe}`;
}

export function remove(filter, index) {
  return join(terms(filter).filter((_, place) => place !== index));
}

/** Turns a term into its opposite. */
export function negate(filter, index) {
  return terms(filter).map((known, place) => (place !== index ? known.text : known.negated ? known.text.slice(1) : `-${known.text}`)).join(" ");
}
