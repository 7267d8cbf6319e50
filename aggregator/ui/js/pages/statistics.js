// Statistics for the last seven days.

import { Problem, getCounts, parameters } from "../lib/api.js";
import { banners } from "../components/banners.js";
import { bar } from "../components/bar.js";
import { digits, h, put, short } from "../lib/dom.js";
import { term } from "../lib/filter.js";
import { Histogram } from "../components/histogram.js";
import { start } from "../components/shell.js";
import { address } from "../lib/state.js";
import { WEEK_VIEW, weekNumbers } from "../components/week.js";

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
  const view = new StatisticsView(main);
  await view.load();
});

/** The page: numbers of the week, a chart, and the most frequent values. */
class StatisticsView {
  constructor(main) {
    this.warn = banners({ retry: () => this.load() });
    this.numbers = h("div", {});
    this.chart = new Histogram({
      zoom: (from, to) => location.assign(address({ ...WEEK_VIEW, filter: "", from, to })),
    });
    this.lists = h("div", { class: "card-grid" });
    const heading = h("h1", {}, "Statistics for the last 7 days");
    main.append(heading, this.warn.element, this.numbers, this.chart.element, this.lists);
    document.addEventListener("zonechange", () => this.chart.redraw());
  }

  async load() {
    const fields = LISTS.map(([field]) => field).join(",");
    const all = getCounts(`/stats?${parameters({ from: WEEK_VIEW.from, by: fields, top: 10, bucket: "3h" })}`);
    const failed = getCounts(
      `/stats?${parameters({ from: WEEK_VIEW.from, by: "ip_address,user", top: 10, filter: FAILED })}`,
    );
    const answer = await all.catch((error) => error);
    failed.catch(() => {});
    if (answer instanceof Error) {
      put(this.numbers, h("p", { class: "error" }, answer.message));
      if (answer instanceof Problem && answer.envelope) await this.warn.show(answer.envelope);
      return;
    }
    put(this.numbers, weekNumbers(answer));
    this.chart.show(answer, BUCKET_SECONDS);
    await this.warn.show(answer);
    put(
      this.lists,
      failureCards(await failed.catch((error) => error)),
      LISTS.map(([field, key, heading]) => card(answer, field, heading, (value) => term(key, value))),
    );
  }
}

/** Renders who failed most often, or an error if the failures could not be counted. */
function failureCards(answer) {
  if (answer instanceof Error) return h("p", { class: "error" }, `Counts of failures unavailable: ${answer.message}`);
  return [
    card(answer, "ip_address", "IPs with failed or denied actions", (value) => `${FAILED} ${term("ip", value)}`),
    card(answer, "user", "Users with failed or denied actions", (value) => `${FAILED} ${term("user", value)}`),
  ];
}

/** Renders the most frequent values of a field. `filter(value)` returns the filter that selects their entries. */
function card(answer, field, heading, filter) {
  const counts = answer.stats.by.find((one) => one.field === field);
  const rest = restText(counts);
  return h(
    "section",
    { class: "card" },
    h("h2", {}, heading),
    counts.top.length === 0 ? h("p", { class: "hint" }, "None.") : valueTable(counts.top, heading, filter),
    rest && h("p", { class: "hint" }, rest),
  );
}

function valueTable(values, caption, filter) {
  const most = Math.max(1, ...values.map((one) => one.count));
  const heads = ["Value", "Entries", "Share"].map((name) => h("th", { scope: "col" }, name));
  const line = ({ value, count }) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, h("a", { href: address({ ...WEEK_VIEW, filter: filter(value) }) }, short(value, 60))),
      h("td", { class: "numeric" }, digits(count)),
      h("td", { "aria-hidden": "true" }, bar(count / most)),
    );
  return h(
    "table",
    {},
    h("caption", { class: "visually-hidden" }, caption),
    h("thead", { class: "visually-hidden" }, h("tr", {}, heads)),
    h("tbody", {}, values.map(line)),
  );
}

/** Describes the entries that the most frequent values leave out. */
const restText = (counts) =>
  [
    counts.other > 0 && `${digits(counts.other)} entries have other values.`,
    counts.none > 0 && `${digits(counts.none)} have none.`,
    counts.distinct === null && "Too many distinct values to count.",
  ]
    .filter(Boolean)
    .join(" ");
