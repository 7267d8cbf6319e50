// Summary of the last seven days, independent of the filter.

import { getCounts, parameters } from "../lib/api.js";
import { digits, h, put } from "../lib/dom.js";
import { address } from "../lib/state.js";

/** View of the last seven days, without its filter. */
export const WEEK_VIEW = { from: "7d", to: "", order: "desc" };
const COUNTS = `/stats?${parameters({ from: WEEK_VIEW.from, by: "user", top: 5 })}`;

/** Creates the summary bar, which loads its own counts. */
export function weekBar() {
  const element = h("div", { class: "week-summary" }, numbers([["Last 7 days", "…", null]]));
  return {
    element,
    async load() {
      try {
        put(element, weekNumbers(await getCounts(COUNTS)));
      } catch (error) {
        put(element, h("p", { class: "hint" }, `Counts unavailable: ${error.message}`));
      }
    },
  };
}

/** Returns the counts of entries, flagged, failed and active users; lower bounds while a node is missing. */
export function weekNumbers(answer) {
  const { stats } = answer;
  const least = answer.complete ? "" : "≥ ";
  const link = (filter) => address({ ...WEEK_VIEW, filter });
  return numbers([
    ["entries, last 7 days", `${least}${digits(stats.entries)}`, link("")],
    ["flagged", `${least}${digits(stats.flagged)}`, link("is:flagged")],
    ["failed or denied", `${least}${digits(stats.failed + stats.denied)}`, link("outcome:failure,denied")],
    [
      "active users",
      stats.distinct_users === null ? "over 100,000" : `${least}${digits(stats.distinct_users)}`,
      "/statistics",
    ],
  ]);
}

function numbers(list) {
  return h(
    "ul",
    { class: "stats" },
    list.map(([label, number, href]) => {
      const content = [h("b", {}, number), h("span", { class: "label" }, label)];
      return h("li", {}, href ? h("a", { href }, content) : content);
    }),
  );
}
