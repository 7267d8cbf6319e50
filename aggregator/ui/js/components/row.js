// One row of an answer: position, fields, and badges that show its state as text, shape and colour.

import { h, short, textOr, visible } from "../lib/dom.js";
import { term } from "../lib/filter.js";

/** Returns the entry of a row, or an empty object if the row has no parsed entry. */
export function entryOf(row) {
  return row.entry !== null && typeof row.entry === "object" ? row.entry : {};
}

export function placeOf(row) {
  const entry = entryOf(row);
  return row.found_at ? `${row.found_at.node_id}/${row.found_at.seq}` : `${entry.node_id}/${entry.seq}`;
}

/** Returns a unique key of a row: two logs of one node contain rows with the same number. */
export function keyOf(row) {
  return row.found_at ? placeOf(row) : `${placeOf(row)}@${entryOf(row).generation}`;
}

/** Returns the query string that selects the log that contains a row. */
export function logOf(row) {
  const generation = entryOf(row).generation;
  return !row.found_at && typeof generation === "string" ? `?generation=${encodeURIComponent(generation)}` : "";
}

/** Returns the position of a row, followed by @ and the generation if the row is not in the node's current log. */
export function addressOf(row, envelope) {
  const generation = entryOf(row).generation;
  const node = envelope?.nodes?.find((known) => known.node_id === nodeOf(row));
  const isPresent =
    row.found_at || typeof generation !== "string" || !node?.generation || node.generation === generation;
  return isPresent ? placeOf(row) : `${placeOf(row)}@${generation}`;
}

export const nodeOf = (row) => row.found_at?.node_id ?? entryOf(row).node_id;
export const seqOf = (row) => row.found_at?.seq ?? entryOf(row).seq;
const TIME = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?Z$/;
/** Returns the time of a row as RFC 3339, or "" if it has no valid time. */
export function timeOf(row) {
  const time = row.erased?.timestamp ?? entryOf(row).timestamp;
  return typeof time === "string" && TIME.test(time) ? time : "";
}

/** Returns when the entry occurred according to the caller, RFC 3339 in UTC, or "" if it has no valid time. */
export function occurredOf(row) {
  const text = entryOf(row).occurred_at;
  if (typeof text !== "string") return "";
  if (TIME.test(text)) return text;
  const time = new Date(text);
  return Number.isNaN(time.getTime()) || time.getUTCFullYear() > 9999 || time.getUTCFullYear() < 0
    ? ""
    : time.toISOString();
}

export function badge(kind, icon, text, title) {
  return h(
    "span",
    { class: `badge ${kind}`, title: title && visible(title) },
    h("span", { class: "icon", "aria-hidden": "true" }, icon),
    text,
  );
}

/** Returns badges that show whether a row has a valid signature, and whether it is witnessed. */
export function integrityBadges(row) {
  const known = {
    ok: () => [
      badge("success", "✓", "verified", "Valid signature"),
      row.witnessed
        ? badge("success", "◉", "witnessed", "Part of a checkpoint that a witness has cosigned")
        : badge("neutral", "○", "pending", "Valid signature; no witness has seen it yet"),
    ],
    violation: () => [badge("danger", "✖", "VIOLATION", row.reason ?? "Invalid signature")],
    unknown_key: () => [badge("warning", "?", "unknown key", row.reason ?? "Unknown key")],
    erased: () => [badge("neutral", "▭", "erased", row.reason)],
  };
  const badges = Object.hasOwn(known, row.integrity)
    ? known[row.integrity]()
    : [badge("warning", "?", short(row.integrity), row.reason)];
  const held = row.withheld && badge("warning", "▒", "withheld", "May be outside your scope");
  const late = row.late && badge("warning", "↶", "late", "Arrived after newer entries");
  return [held, late, ...badges].filter(Boolean);
}

export function outcomeBadge(outcome) {
  const known = {
    success: ["neutral", "●", "ok"],
    failure: ["danger", "✖", "FAILED"],
    denied: ["warning", "⊘", "DENIED"],
  };
  const [kind, icon, text] = Object.hasOwn(known, outcome)
    ? known[outcome]
    : ["neutral", "–", textOr(outcome) ? short(outcome, 20) : "unknown"];
  return badge(kind, icon, text);
}

export function flagBadge(entry) {
  if (!Array.isArray(entry.flags) || entry.flags.length === 0) return null;
  const rules = entry.flags.map((flag) => visible(flag?.rule ?? "?")).join(", ");
  return badge("warning", "⚑", "flagged", rules);
}

/** Returns the conditions that select the values of an entry's fields, `key:value`. */
export function termsOf(row) {
  const entry = entryOf(row);
  const found = [["node", nodeOf(row)]];
  for (const [key, field] of [
    ["user", "user"],
    ["impersonator", "impersonator"],
    ["action", "action"],
    ["category", "category"],
    ["outcome", "outcome"],
    ["reason", "reason"],
    ["target", "target"],
    ["domain", "domain"],
    ["ip", "ip_address"],
    ["session", "session"],
    ["request", "request_id"],
    ["credential", "credential"],
    ["auth_method", "auth_method"],
  ]) {
    if (typeof entry[field] === "string" && entry[field] !== "") found.push([key, entry[field]]);
  }
  const entity = entityOf(entry);
  if (entity) found.push(["entity", entity]);
  return found.filter(([, value]) => value).map(([key, value]) => ({ key, value, text: term(key, value) }));
}

export function entityOf(entry) {
  if (typeof entry.entity_type !== "string") return null;
  return typeof entry.entity_id === "string" ? `${entry.entity_type}/${entry.entity_id}` : entry.entity_type;
}

/** Returns the names of the user and the impersonator. */
export function actorWords(entry) {
  return { user: textOr(entry.user), impersonator: textOr(entry.impersonator) };
}

export function headline(row) {
  const entry = entryOf(row);
  if (row.erased) return "Erased entry";
  if (row.withheld) return "Withheld entry";
  const what = entityOf(entry) ?? textOr(entry.target);
  return visible(`${textOr(entry.action, "unreadable entry")}${what ? ` on ${what}` : ""}`);
}
