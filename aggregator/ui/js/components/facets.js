// Facets: the most frequent values of some fields, counted by the server over all matching entries.

import { digits, h, put, short, svg } from "../lib/dom.js";
import { isMissing } from "./node-words.js";

/** Field of `GET /stats`, filter key and heading. @type {[string, string, string][]} */
const FACETS = [
  ["node_id", "node", "Node"],
  ["outcome", "outcome", "Outcome"],
  ["action", "action", "Action"],
  ["user", "user", "User"],
  ["ip_address", "ip", "IP address"],
  ["entity_type", "entity", "Entity type"],
  ["category", "category", "Category"],
  ["flag", "flag", "Flag"],
];
export const COUNTED = FACETS.map(([field]) => field).join(",");
const OPEN_AT_FIRST = 4;

/** Creates the facets. `filter(key, value, exclude)` adds a condition. */
export function facets({ filter }) {
  const element = h(
    "aside",
    { class: "facets", "aria-label": "Most frequent values" },
    h("p", { class: "hint" }, "Counting…"),
  );
  const closed = new Set(FACETS.slice(OPEN_AT_FIRST).map(([field]) => field));

  function one([field, key, heading], answer) {
    const counts = answer.stats.by.find((known) => known.field === field);
    if (!counts) return null;
    const absent = field === "node_id" ? answer.nodes.filter(isMissing) : [];
    const most = Math.max(1, ...counts.top.map((value) => value.count));
    const line = ({ value, count }) =>
      h(
        "li",
        {},
        h(
          "button",
          {
            type: "button",
            class: "link-button value",
            title: "Click to filter, alt-click to exclude.",
            onclick: (event) => filter(key, value, event.altKey),
          },
          short(value, 40),
        ),
        h(
          "span",
          { class: "count" },
          digits(count),
          " ",
          h(
            "button",
            {
              type: "button",
              class: "link-button exclude",
              "aria-label": `Exclude ${short(value, 40)}`,
              title: "Exclude",
              onclick: () => filter(key, value, true),
            },
            "−",
          ),
        ),
        svg(
          "svg",
          { class: "bar", viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" },
          svg("rect", { width: (count / most) * 100, height: 4 }),
        ),
      );
    const missing = absent.map((node) =>
      h(
        "li",
        { class: "missing" },
        h("span", {}, node.node_id),
        h("span", { class: "count", title: node.reason }, "?", h("span", { class: "visually-hidden" }, " not counted")),
      ),
    );
    const rest = [
      counts.distinct === null && h("li", { class: "hint" }, "Too many distinct values to count."),
      counts.other > 0 &&
        h(
          "li",
          { class: "hint" },
          h("span", {}, counts.distinct ? `${digits(counts.distinct - counts.top.length)} others` : "others"),
          h("span", { class: "count" }, digits(counts.other)),
        ),
      counts.top.length === 0 &&
        missing.length === 0 &&
        counts.distinct !== null &&
        h("li", { class: "hint" }, "None."),
    ];
    const box = h(
      "details",
      { open: !closed.has(field) },
      h("summary", {}, heading),
      h("ul", {}, counts.top.map(line), missing, rest),
    );
    box.addEventListener("toggle", () => (box.open ? closed.delete(field) : closed.add(field)));
    return box;
  }

  return {
    element,
    show: (answer) =>
      put(
        element,
        h("h2", { class: "visually-hidden" }, "Most frequent values"),
        FACETS.map((facet) => one(facet, answer)),
      ),
    fail: (words) => put(element, h("p", { class: "error" }, `Counts unavailable: ${words}`)),
  };
}
