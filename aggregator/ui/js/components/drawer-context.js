// Context of an entry: same request, same session, same entity, and five minutes before and after on the same node.

import { get, parameters } from "../lib/api.js";
import { h, short, textOr, visible } from "../lib/dom.js";
import { quote } from "../lib/filter.js";
import { isComplete } from "./node-words.js";
import { actorWords, entityOf, entryOf, keyOf, nodeOf, placeOf, timeOf } from "./row.js";
import { address, EVERYTHING } from "../lib/state.js";
import { fromMicros, micros, parts } from "../lib/time.js";

const AROUND_MICROS = 5 * 60 * 1e6;
/** Maximum number of entries in each section. */
const SHOWN = 12;

export async function contextTab(row) {
  const entry = entryOf(row);
  const time = timeOf(row);
  const asked = [];
  if (textOr(entry.request_id))
    asked.push(["Same request", { filter: `request:${quote(entry.request_id)}`, from: EVERYTHING, to: "" }]);
  if (textOr(entry.session))
    asked.push(["Same session", { filter: `session:${quote(entry.session)}`, from: EVERYTHING, to: "" }]);
  const entity = entityOf(entry);
  if (entity)
    asked.push([`Same entity (${short(entity, 40)})`, { filter: `entity:${quote(entity)}`, from: EVERYTHING, to: "" }]);
  if (time) {
    const at = micros(time);
    const filter = `node:${quote(nodeOf(row))}`;
    asked.push([
      `Five minutes after, on ${nodeOf(row)}`,
      { filter, from: fromMicros(at), to: fromMicros(at + AROUND_MICROS), order: "asc" },
    ]);
    asked.push([
      `Five minutes before, on ${nodeOf(row)}`,
      { filter, from: fromMicros(at - AROUND_MICROS), to: fromMicros(at + 1) },
    ]);
  }
  if (asked.length === 0) return h("p", { class: "hint" }, "No related entries to search for.");
  return Promise.all(asked.map(([heading, query]) => section(heading, query, row)));
}

async function section(heading, query, row) {
  const link = h("a", { href: address({ order: "desc", ...query, row: placeOf(row) }) }, "show all");
  try {
    const answer = await get(`/audit-log?${parameters({ ...query, limit: SHOWN })}`);
    const missing = isComplete(answer)
      ? null
      : h("p", { class: "error" }, `Not complete: ${answer.answered} of ${answer.expected} nodes answered in full.`);
    const more =
      answer.next_cursor &&
      h("p", { class: "hint" }, `The ${SHOWN} ${query.order === "asc" ? "oldest" : "newest"} entries; there are more.`);
    return h(
      "section",
      {},
      h("h3", {}, heading, " ", link),
      missing,
      h(
        "ol",
        { class: "related" },
        answer.entries.map((near) => line(near, row)),
      ),
      more,
    );
  } catch (error) {
    return h("section", {}, h("h3", {}, heading), h("p", { class: "error" }, visible(error.message)));
  }
}

function line(near, row) {
  const entry = entryOf(near);
  const time = timeOf(near) ? parts(timeOf(near)) : { day: "", time: "no time" };
  const { user } = actorWords(entry);
  const here = keyOf(near) === keyOf(row);
  const words = [
    short(user ?? "–", 40),
    short(textOr(entry.action) ?? near.reason ?? "–", 60),
    short(entityOf(entry) ?? "", 40),
  ]
    .filter(Boolean)
    .join(" · ");
  return h(
    "li",
    { class: here ? "current" : null, "aria-current": here ? "true" : null },
    h("span", { class: "mono" }, `${time.day} ${time.time}`),
    h("span", {}, `${nodeOf(near)} · ${words}`, here ? " (this entry)" : ""),
  );
}
