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
const WORDS = { reviewed: ["\u2713 reviewed", "Reviewed"], false_alarm: ["\u25CB false alarm", "False alarm"] };

/** Returns a section with the flags of an entry and the verdicts on them; null if the entry is not flagged. */
export function judgements(row) {
  const entry = entryOf(row);
  if (!Array.isArray(entry.flags) || entry.flags.length === 0 || row.integrity !== "ok") return null;
  const list = h("div", { class: "hint" }, "Loading verdicts\u2026");
  const buttons =
    may("audit.verify") &&
    h(
      "div",
      { class: "button-group" },
      Object.entries(WORDS).map(([judgement, [, label]]) =>
        h("button", { type: "button", onclick: () => judge(judgement, label) }, label),
      ),
    );
  const reasons = h(
    "ul",
    {},
    entry.flags.map((flag) =>
      h(
        "li",
        {},
        h("b", {}, visible(textOr(flag?.rule, "?"))),
        `: ${visible(textOr(flag?.reason, "no reason given"))}`,
      ),
    ),
  );
  const element = h("section", { class: "verdicts", "aria-label": "Flags and verdicts" }, reasons, list, buttons);

  const since = entry.timestamp ? fromMicros(micros(entry.timestamp) - CLOCKS_OFF_MICROS) : EVERYTHING;

  async function load() {
    const filter = `action:audit.judge outcome:success details:${quote(textOr(entry.id, placeOf(row)))}`;
    try {
      // A verdict is recorded after its entry, so earlier rows that were pruned do not matter. Clocks may differ by
      // some hours.
      const answer = await get(`/audit-log?${parameters({ filter, from: since, limit: 100 })}`);
      // Every client that may record on a node can write an entry that looks like a verdict. So each verdict is shown
      // with a link to itself and the node that it was recorded on; aggregators record on their own nodes.
      const isAbout = (details) =>
        details?.id === entry.id &&
        details.node === nodeOf(row) &&
        details.seq === Number(seqOf(row)) &&
        details.generation === entry.generation;
      const known = answer.entries.filter(
        (one) => one.integrity === "ok" && one.entry.category === "audit" && isAbout(one.entry.details),
      );
      const missing = isComplete(answer)
        ? null
        : h("p", { class: "error" }, `Not complete: ${answer.answered} of ${answer.expected} nodes answered in full.`);
      put(
        list,
        known.length === 0 ? h("p", { class: "hint" }, "No verdict yet.") : h("ul", {}, known.map(line)),
        missing,
        known.length > 0 && h("a", { href: address({ filter, from: since, to: "", order: "desc" }) }, "show entries"),
      );
    } catch (error) {
      put(list, h("p", { class: "error" }, visible(error.message)));
    }
  }

  async function judge(judgement, label) {
    const reason = await askReason(
      `${label}: ${placeOf(row)}`,
      [
        h(
          "p",
          {},
          "The verdict is recorded under your name, as an entry that refers to this one. This entry is not changed.",
        ),
      ],
      label,
    );
    if (reason === null) return;
    try {
      await send("POST", "/judgements", {
        node: nodeOf(row),
        seq: Number(seqOf(row)),
        generation: row.found_at ? undefined : entryOf(row).generation,
        judgement,
        reason,
      });
      await load();
    } catch (error) {
      notice(`Cannot record the verdict: ${error.message}`, true);
    }
  }

  load();
  return element;
}

function line(judgement) {
  const { entry } = judgement;
  const place = address({
    filter: `node:${quote(nodeOf(judgement))} seq:${seqOf(judgement)}`,
    from: EVERYTHING,
    to: "",
    order: "desc",
  });
  const [sign] = WORDS[entry.details.judgement] ?? [textOr(entry.details.judgement, "?")];
  return h(
    "li",
    {},
    h("b", {}, visible(sign)),
    ` by ${visible(textOr(entry.user, "?"))} at ` +
      `${moment(entry.timestamp)}: ${visible(textOr(entry.details.words, ""))} `,
    h("a", { href: place }, `(recorded on ${visible(nodeOf(judgement))})`),
  );
}
