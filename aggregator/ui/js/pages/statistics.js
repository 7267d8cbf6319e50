// Statistics for the last seven days.

import { Problem, getCounts, parameters } from "../lib/api.js";
import { banners } from "../components/banners.js";
import { digits, h, put, short, svg } from "../lib/dom.js";
import { term } from "../lib/filter.js";
import { histogram } from "../components/histogram.js";
import { start } from "../components/shell.js";
import { address } from "../lib/state.js";
import { weekNumbers } from "../components/week.js";

/** Field of `GET /stats`, filter key and heading. */
const LISTS = [
  ["user", "user", "Active users"],
  ["ip_address", "ip", "IP addresses"],
  ["action", "action", "Actions"],
  ["outcome", "outcome", "Outcomes"],
  ["entity_type", "entity", "Entity types"],
  ["node_id", "node", "Nodes"],
];
const FAILED = "outcome:failure,denied";
const BUCKET_SECONDS = 3 * 3_600;

start(async (main) => {
  const week = { from: "7d", to: "", order: "desc" };
  const warn = banners({ retry: load });
  const numbers = h("div", {});
  const chart = histogram({ zoom: (from, to) => location.assign(address({ ...week, filter: "", from, to })) });
  const lists = h("div", { class: "card-grid" });
  main.append(h("h1", {}, "Statistics for the last 7 days"), warn.element, numbers, chart.element, lists);
  document.addEventListener("zonechange", chart.redraw);

  async function load() {
    const all = getCounts(
      `/stats?${parameters({ from: "7d", by: LISTS.map(([field]) => field).join(","), top: 10, bucket: "3h" })}`,
    );
    const failed = getCounts(`/stats?${parameters({ from: "7d", by: "ip_address,user", top: 10, filter: FAILED })}`);
    const answer = await all.catch((error) => error);
    failed.catch(() => {});
    if (answer instanceof Error) {
      put(numbers, h("p", { class: "error" }, answer.message));
      if (answer instanceof Problem && answer.envelope) await warn.show(answer.envelope);
      return;
    }
    put(numbers, weekNumbers(answer));
    chart.show(answer, BUCKET_SECONDS);
    await warn.show(answer);
    const bad = await failed.catch((error) => error);
    put(
      lists,
      bad instanceof Error && h("p", { class: "error" }, `Counts of failures unavailable: ${bad.message}`),
      !(bad instanceof Error) &&
        list(bad, "ip_address", "IPs with failed or denied actions", (value) => `${FAILED} ${term("ip", value)}`),
      !(bad instanceof Error) &&
        list(bad, "user", "Users with failed or denied actions", (value) => `${FAILED} ${term("user", value)}`),
      LISTS.map(([field, key, heading]) => list(answer, field, heading, (value) => term(key, value))),
    );
  }

  function list(answer, field, heading, filter) {
    const counts = answer.stats.by.find((one) => one.field === field);
    const most = Math.max(1, ...counts.top.map((one) => one.count));
    const line = ({ value, count }) =>
      h(
        "tr",
        {},
        h("th", { scope: "row" }, h("a", { href: address({ ...week, filter: filter(value) }) }, short(value, 60))),
        h("td", { class: "numeric" }, digits(count)),
        h(
          "td",
          { "aria-hidden": "true" },
          svg(
            "svg",
            { class: "bar", viewBox: "0 0 100 4", preserveAspectRatio: "none" },
            svg("rect", { width: (count / most) * 100, height: 4 }),
          ),
        ),
      );
    const rest = [
      counts.other > 0 && `${digits(counts.other)} entries have other values.`,
      counts.none > 0 && `${digits(counts.none)} have none.`,
      counts.distinct === null && "Too many distinct values to count.",
    ]
      .filter(Boolean)
      .join(" ");
    return h(
      "section",
      { class: "card" },
      h("h2", {}, heading),
      counts.top.length === 0
        ? h("p", { class: "hint" }, "None.")
        : h(
            "table",
            {},
            h("caption", { class: "visually-hidden" }, heading),
            h(
              "thead",
              { class: "visually-hidden" },
              h(
                "tr",
                {},
                ["Value", "Entries", "Share"].map((name) => h("th", { scope: "col" }, name)),
              ),
            ),
            h("tbody", {}, counts.top.map(line)),
          ),
      rest && h("p", { class: "hint" }, rest),
    );
  }
  await load();
});
