// Splits filters into conditions. A filter is one string, the same in the chips, the text field and the URL. Only the
// server interprets it; this module finds where one condition ends and the next begins.

/** Splits a filter at white space outside quotes and parentheses: `{text, from, to}`. */
function pieces(filter) {
  const found = [];
  let at = 0;
  while (at < filter.length) {
    if (/\s/.test(filter[at])) {
      at += 1;
      continue;
    }
    const from = at;
    let [quoted, depth] = [false, 0];
    while (at < filter.length && (quoted || depth > 0 || !/\s/.test(filter[at]))) {
      if (filter[at] === "\\" && quoted) at += 1;
      else if (filter[at] === '"') quoted = !quoted;
      else if (filter[at] === "(" && !quoted) depth += 1;
      else if (filter[at] === ")" && !quoted) depth = Math.max(0, depth - 1);
      at += 1;
    }
    found.push({ text: filter.slice(from, at), from, to: at });
  }
  return found;
}

/** Prefix of a filter in version 1 of the language, which has neither OR nor parentheses. */
const OLD = /^\s*v1:\s*/;

/**
 * Returns the conditions of a filter, all of which must hold: `{text, negated, key, value, from, to}`. The key of free
 * text and of groups is empty. Alternatives that are not in parentheses are one condition.
 */
export function terms(filter) {
  const mark = OLD.exec(filter)?.[0] ?? "";
  const found = pieces(filter.slice(mark.length)).map((piece) => ({
    ...piece,
    from: piece.from + mark.length,
    to: piece.to + mark.length,
  }));
  if (mark === "" && found.some((piece) => piece.text === "OR")) {
    const all = filter.trim();
    return [{ text: `(${all})`, negated: false, key: "", value: all, from: 0, to: filter.length }];
  }
  const list = [];
  let not = null;
  for (const piece of found) {
    if (mark === "" && piece.text === "AND") continue;
    if (mark === "" && piece.text === "NOT") {
      not ??= piece;
      continue;
    }
    const term = read(piece.text);
    list.push(
      not
        ? { ...term, text: `NOT ${piece.text}`, negated: true, from: not.from, to: piece.to }
        : { ...term, from: piece.from, to: piece.to },
    );
    not = null;
  }
  return list;
}

function read(text) {
  const negated = text.startsWith("-") && text.length > 1;
  const rest = negated ? text.slice(1) : text;
  const key = /^([a-z_]+|(?:details|changes)\.[^:="]+)[:=]/.exec(rest);
  return { text, negated, key: key ? key[1] : "", value: key ? rest.slice(key[0].length) : rest };
}

/** Returns the condition at the caret, even inside a group: `{text, negated, key, value, from, to}`. */
export function wordAt(filter, caret) {
  const found = [];
  let [at, quoted, from] = [0, false, -1];
  const end = () => {
    if (from >= 0) found.push({ ...read(filter.slice(from, at)), from, to: at });
    from = -1;
  };
  for (; at < filter.length; at += 1) {
    const c = filter[at];
    if (!quoted && (/\s/.test(c) || "()".includes(c))) {
      end();
      continue;
    }
    if (from < 0) from = at;
    if (c === "\\" && quoted) at += 1;
    else if (c === '"') quoted = !quoted;
  }
  end();
  return found.find((word) => word.from < caret && caret <= word.to);
}

const PLAIN = /^[\p{L}\p{N}][\p{L}\p{N}._@/+:-]*$/u;

const quoted = (value) => `"${String(value).replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;

/** Quotes a value if necessary, so that it is taken literally. */
export function quote(value) {
  const text = String(value);
  return PLAIN.test(text) && !text.includes("..") ? text : quoted(text);
}

/** Removes the quotes of a value. */
export function unquote(value) {
  return value.startsWith('"') && value.endsWith('"') && value.length > 1
    ? value.slice(1, -1).replaceAll('\\"', '"').replaceAll("\\\\", "\\")
    : value;
}

const join = (filter, list) => `${OLD.exec(filter)?.[0] ?? ""}${list.map((term) => term.text).join(" ")}`;

const opposite = (text) =>
  text.startsWith("-") ? text.slice(1) : text.startsWith("NOT ") ? text.slice(4).trim() : `-${text}`;

/** Adds a condition unless the filter has it already, and removes its opposite. */
export function add(filter, text) {
  const rest = terms(filter).filter((term) => term.text !== text && term.text !== opposite(text));
  return `${join(filter, rest)} ${text}`.trim();
}

/** An IP address or range; any other value of an address field must be quoted to be taken literally. */
const ADDRESS = /^(\d{1,3}(\.\d{1,3}){3}|[0-9a-f]*:[0-9a-f:.]*)(\/\d{1,3})?$/i;

/** Keys with a fixed set of values: the server rejects any other value unless it is quoted. */
const LISTED = ["outcome", "flag", "via", "category"];

/** Formats one condition. */
export function term(key, value, negated = false) {
  const means =
    (key === "ip" && !ADDRESS.test(value)) || (LISTED.includes(key) && !/^[a-z][a-z0-9_-]*$/.test(value))
      ? quoted(value)
      : quote(value);
  return `${negated ? "-" : ""}${key ? `${key}:` : ""}${means}`;
}

export function remove(filter, index) {
  return join(
    filter,
    terms(filter).filter((_, place) => place !== index),
  );
}

/** Turns a condition into its opposite. */
export function negate(filter, index) {
  return join(
    filter,
    terms(filter).map((known, place) => (place === index ? { ...known, text: opposite(known.text) } : known)),
  );
}
