// Prints a report: the query, the completeness statement, and at most one server page of entries.

import { get, parameters } from "../lib/api.js";
import { statement } from "./node-words.js";
import { h, visible } from "../lib/dom.js";
import { RowTable } from "./rows.js";
import { query, rangeWords } from "../lib/state.js";
import { moment, zoneName } from "../lib/time.js";

const ROWS_MAX = 1_000;

/** Prints the entries that a view selects. */
export async function printView(state, me) {
  const answer = await get(`/audit-log?${parameters({ ...query(state), order: state.order, limit: ROWS_MAX })}`);
  const table = new RowTable({ open: () => {}, filter: () => {} });
  table.show(answer.entries, answer, state.order);
  const cut = answer.next_cursor
    ? `These are the first ${answer.count} entries; there are more. Export to get all of them.`
    : answer.complete
      ? `These are all ${answer.count} entries.`
      : `These are the ${answer.count} entries of the nodes that answered; there may be more.`;
  const report = h(
    "section",
    { class: "print-only report" },
    h("h1", {}, "Audit log report"),
    h(
      "p",
      {},
      `Cluster ${me.cluster}. Printed ${moment(new Date().toISOString())} ` +
        `by ${visible(me.name)} (${me.role}). Times: ${zoneName()}.`,
    ),
    h(
      "p",
      {},
      `Filter: ${visible(state.filter) || "none"}. Range: ` +
        `${rangeWords(state)} (${moment(answer.from)} to ${moment(answer.to)}).`,
    ),
    h("pre", {}, statement(answer)),
    h("p", {}, cut),
    table.element,
  );
  const main = document.getElementById("content");
  const screen = [...main.children];
  for (const part of screen) part.classList.add("no-print");
  main.append(report);
  const done = () => {
    report.remove();
    for (const part of screen) part.classList.remove("no-print");
  };
  addEventListener("afterprint", done, { once: true });
  print();
}
