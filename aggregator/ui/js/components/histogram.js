// Histogram of entries over time: stacked bars, hatched while a node is missing, with zoom by dragging and a table.

import { digits, h, put, svg } from "../lib/dom.js";
import { isMissing } from "./node-words.js";
import { fromMicros, micros, moment } from "../lib/time.js";

const HEIGHT = 100;
const WIDTH = 1000;

/** The chart. `zoom(from, to)` is called with RFC 3339 times. */
export class Histogram {
  #zoom;
  /** The answer that is shown, with its range and bucket width in microseconds; null if there is none. */
  #shown = null;
  element = h(
    "section",
    { class: "histogram", "aria-label": "Entries over time" },
    h("p", { class: "hint" }, "Counting…"),
  );

  constructor({ zoom }) {
    this.#zoom = zoom;
  }

  /** Shows an answer with buckets of `width` seconds. */
  show(answer, width, axis = "recorded") {
    this.#shown = { answer, ...extent(answer, width, axis, Date.now() * 1000) };
    this.redraw();
  }

  fail(words) {
    this.#shown = null;
    put(this.element, h("p", { class: "error" }, `Counts unavailable: ${words}`));
  }

  /** Renders the chart again, for example in another time zone. */
  redraw() {
    if (!this.#shown) return;
    const { answer, from, to, width } = this.#shown;
    const missing = answer.nodes.filter(isMissing).map((node) => node.node_id);
    const brush = svg("rect", { class: "brush", y: 0, height: HEIGHT, x: 0, width: 0 });
    const chart = chartSvg(this.#shown, missing, brush);
    const at = (share) => fromMicros(from + (to - from) * share);
    drag(chart, brush, (begin, end) => this.#zoom(at(begin), at(end)));
    put(
      this.element,
      chart,
      h("div", { class: "axis" }, h("span", {}, moment(fromMicros(from))), h("span", {}, moment(fromMicros(to)))),
      legend(answer, missing),
      table(bucketsOf(answer), width, this.#zoom),
    );
  }
}

const bucketsOf = (answer) => answer.stats.histogram?.buckets ?? [];

/**
 * Returns the range of the chart and the width of its buckets, in microseconds. Entries recorded in a range may have
 * occurred at any time, so a chart by time of occurrence begins and ends with its buckets.
 */
export function extent(answer, seconds, axis, now) {
  const starts = bucketsOf(answer).map((bucket) => micros(bucket.from));
  const width = seconds * 1e6;
  const isOpen = axis === "occurred" || answer.from.startsWith("0001");
  const from = isOpen ? (starts[0] ?? now - width) : micros(answer.from);
  const last = (starts.at(-1) ?? 0) + width;
  const end = axis === "occurred" && starts.length > 0 ? last : Math.max(micros(answer.to), last);
  return { from, to: Math.max(end, from + width), width };
}

/** Renders the bars, hatched while nodes are missing. `brush` is the rectangle of the selection. */
function chartSvg({ answer, from, to, width }, missing, brush) {
  const buckets = bucketsOf(answer);
  const most = Math.max(1, ...buckets.map((bucket) => bucket.entries));
  const x = (time) => ((time - from) / (to - from)) * WIDTH;
  return svg(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": summary(answer.stats, missing),
    },
    svg("defs", {}, noDataPattern()),
    missing.length > 0 && svg("rect", { class: "no-data-pattern", x: 0, y: 0, width: WIDTH, height: HEIGHT }),
    buckets.map((bucket) => bar(bucket, x, width, most)),
    brush,
  );
}

const noDataPattern = () =>
  svg(
    "pattern",
    { id: "no-data-pattern", width: 8, height: 8, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    svg("line", { class: "hatch", x1: 0, y1: 0, x2: 0, y2: 8 }),
  );

function legend(answer, missing) {
  return h(
    "div",
    { class: "legend" },
    key("ok", "succeeded or other"),
    key("failed", "failed or denied"),
    key("flagged", "flagged"),
    missing.length > 0 && key("no-data-pattern", `${missing.join(", ")} not counted: every number is a lower bound`),
    h("span", {}, "Drag to zoom."),
    answer.verified === false &&
      h(
        "span",
        { title: "Exports, and counts with verify, read the entries themselves" },
        "Counted by the nodes from their indexes; not verified.",
      ),
  );
}

/** Renders one bucket: a stacked bar, and a narrow bar for flagged entries. */
function bar(bucket, x, width, most) {
  const start = micros(bucket.from);
  const [left, right] = [Math.max(0, x(start)), x(start + width)];
  const bad = bucket.failed + bucket.denied;
  const tall = (count) => (count / most) * (HEIGHT - 4);
  const wide = Math.max(1.5, right - left - 1);
  const at = (name, count, y, narrow = 1) =>
    count > 0 &&
    svg("rect", {
      class: name,
      x: left.toFixed(2),
      width: (wide * narrow).toFixed(2),
      y: (HEIGHT - y - tall(count)).toFixed(2),
      height: Math.max(1, tall(count)).toFixed(2),
    });
  return svg(
    "g",
    {},
    svg("title", {}, words(bucket)),
    at("ok", bucket.entries - bad, 0),
    at("failed", bad, tall(bucket.entries - bad)),
    at("flagged", bucket.flagged, 0, 0.4),
  );
}

const words = (bucket) =>
  `${moment(bucket.from)}: ${digits(bucket.entries)} entries, ${digits(bucket.failed)} ` +
  `failed, ${digits(bucket.denied)} denied, ${digits(bucket.flagged)} flagged`;

function summary(stats, missing) {
  const without = missing.length > 0 ? ` (lower bounds: ${missing.join(", ")} not counted)` : "";
  return (
    `${digits(stats.entries)} entries, ${digits(stats.failed)} failed, ` +
    `${digits(stats.denied)} denied, ${digits(stats.flagged)} flagged${without}`
  );
}

function key(name, text) {
  return h(
    "span",
    {},
    svg("svg", { viewBox: "0 0 8 8", "aria-hidden": "true" }, svg("rect", { class: name, width: 8, height: 8 })),
    ` ${text}`,
  );
}

function table(buckets, width, zoom) {
  const line = (bucket) =>
    h(
      "tr",
      {},
      h(
        "th",
        { scope: "row" },
        h(
          "button",
          {
            type: "button",
            class: "link-button",
            onclick: () => zoom(bucket.from, fromMicros(micros(bucket.from) + width)),
          },
          moment(bucket.from),
        ),
      ),
      ["entries", "failed", "denied", "flagged"].map((name) => h("td", { class: "numeric" }, digits(bucket[name]))),
    );
  return h(
    "details",
    {},
    h("summary", {}, "View as table"),
    h(
      "div",
      { class: "table-container" },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ["From", "Entries", "Failed", "Denied", "Flagged"].map((name) => h("th", { scope: "col" }, name)),
          ),
        ),
        h("tbody", {}, buckets.filter((bucket) => bucket.entries > 0).map(line)),
      ),
    ),
  );
}

/** Calls `done` with both ends of a dragged selection, as fractions of the width. */
function drag(chart, brush, done) {
  let start = null;
  const part = (event) => {
    const box = chart.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  const show = (a, b) => {
    brush.setAttribute("x", Math.min(a, b) * WIDTH);
    brush.setAttribute("width", Math.abs(a - b) * WIDTH);
  };
  chart.addEventListener("pointerdown", (event) => {
    start = part(event);
    chart.setPointerCapture(event.pointerId);
  });
  chart.addEventListener("pointermove", (event) => {
    if (start !== null) show(start, part(event));
  });
  chart.addEventListener("pointerup", (event) => {
    const [a, b] = [start, part(event)].sort((one, other) => one - other);
    start = null;
    show(0, 0);
    if (b - a > 0.005) done(a, b);
  });
}
