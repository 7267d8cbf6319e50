// Verdicts on a flagged entry. Each verdict is an entry of its own; the flagged entry is not changed.

import { get, parameters, send } from "../lib/api.js";
import { askReason } from "./dialog.js";
import { h, notice, put, textOr, visible } from "../lib/dom.js";
import { quote } from "../lib/filter.js";
import { isComplete } from "./node-words.js";
import { entryOf, nodeOf, placeOf, seqOf } from "./row.js";
import { may } from "./session.js";
import { address, EVERYTHING } from "../lib/state.js";
import { fromMicros, micros, moment } from "../lib/time.js";

/**
 * Maximum clock difference between two nodes that is tolerated: the search for verdicts starts this long before the
 * entry.
 */
const CLOCKS_OFF_MICROS = 24 * 3600 * 1e6;
/** Verdicts of the API, with their labels. */
const VERDICTS = { true_positive: "True positive", false_positive: "False positive" };
/** Badge of each verdict, under the value that its entry has. */
const BADGES = { reviewed: "\u2713 true positive", false_alarm: "\u25CB false positive" };

/** Returns a section with the flags of an entry and the verdicts on them; null if the entry is not flagged. */
export function verdictSection(row) {
  const { flags } = entryOf(row);
  if (!Array.isArray(flags) || flags.length === 0 || row.integrity !== "ok") return null;
  const list = h("div", { class: "hint" }, "Loading verdicts\u2026");
  const load = async () => put(list, await verdictList(row));
  const record = async (verdict, label) => {
    if (await recordVerdict(row, verdict, label)) await load();
  };
  load();
  return h(
    "section",
    { class: "verdicts", "aria-label": "Flags and verdicts" },
    flagList(flags),
    list,
    may("audit.verify") && verdictButtons(record),
  );
}

const flagList = (flags) =>
  h(
    "ul",
    {},
    flags.map((flag) =>
      h(
        "li",
        {},
        h("b", {}, visible(textOr(flag?.rule, "?"))),
        `: ${visible(textOr(flag?.reason, "no reason given"))}`,
      ),
    ),
  );

const verdictButtons = (record) =>
  h(
    "div",
    { class: "button-group" },
    Object.entries(VERDICTS).map(([verdict, label]) =>
      h("button", { type: "button", onclick: () => record(verdict, label) }, label),
    ),
  );

/** Loads the verdicts on an entry; returns the content of their list. */
async function verdictList(row) {
  const { filter, from } = verdictQuery(row);
  try {
    const answer = await get(`/audit-log?${parameters({ filter, from, limit: 100 })}`);
    const verdicts = answer.entries.filter((found) => isVerdictOn(found, row));
    const href = address({ filter, from, to: "", order: "desc" });
    return [
      verdicts.length === 0 ? h("p", { class: "hint" }, "No verdict yet.") : h("ul", {}, verdicts.map(verdictItem)),
      !isComplete(answer) &&
        h("p", { class: "error" }, `Not complete: ${answer.answered} of ${answer.expected} nodes answered in full.`),
      verdicts.length > 0 && h("a", { href }, "show entries"),
    ];
  } catch (error) {
    return [h("p", { class: "error" }, visible(error.message))];
  }
}

/**
 * Returns the query that finds the verdicts on an entry. A verdict is recorded after its entry, so earlier rows that
 * were pruned do not matter. Clocks may differ by some hours.
 */
function verdictQuery(row) {
  const { id, timestamp } = entryOf(row);
  return {
    filter: `action:audit.judge outcome:success details:${quote(textOr(id, placeOf(row)))}`,
    from: timestamp ? fromMicros(micros(timestamp) - CLOCKS_OFF_MICROS) : EVERYTHING,
  };
}

/**
 * Returns whether a row that was found is a verdict on an entry. Every client that may record on a node can write an
 * entry that looks like a verdict. So each verdict is shown with a link to itself and the node that it was recorded on;
 * aggregators record on their own nodes.
 */
export function isVerdictOn(found, row) {
  if (found.integrity !== "ok" || found.entry.category !== "audit") return false;
  const { details } = found.entry;
  const { id, generation } = entryOf(row);
  return (
    details?.id === id &&
    details.node === nodeOf(row) &&
    details.seq === Number(seqOf(row)) &&
    details.generation === generation
  );
}

/** Returns the text of a verdict. An entry can contain anything, even the name of an inherited property. */
export function verdictBadge(verdict) {
  const text = textOr(verdict, "?");
  return Object.hasOwn(BADGES, text) ? BADGES[text] : text;
}

function verdictItem(found) {
  const { entry } = found;
  const place = address({
    filter: `node:${quote(nodeOf(found))} seq:${seqOf(found)}`,
    from: EVERYTHING,
    to: "",
    order: "desc",
  });
  return h(
    "li",
    {},
    h("b", {}, visible(verdictBadge(entry.details.judgement))),
    ` by ${visible(textOr(entry.user, "?"))} at ` +
      `${moment(entry.timestamp)}: ${visible(textOr(entry.details.words, ""))} `,
    h("a", { href: place }, `(recorded on ${visible(nodeOf(found))})`),
  );
}

/** Asks for a reason and records a verdict on an entry; returns whether it was recorded. */
async function recordVerdict(row, verdict, label) {
  const explanation =
    "The verdict is recorded under your name, as an entry that refers to this one. This entry is not changed.";
  const reason = await askReason(`${label}: ${placeOf(row)}`, [h("p", {}, explanation)], label);
  if (reason === null) return false;
  try {
    await send("POST", "/verdicts", {
      node: nodeOf(row),
      seq: Number(seqOf(row)),
      generation: row.found_at ? undefined : entryOf(row).generation,
      verdict,
      reason,
    });
    return true;
  } catch (error) {
    notice(`Cannot record the verdict: ${error.message}`, true);
    return false;
  }
}
