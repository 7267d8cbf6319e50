// Facets: the most frequent values of some fields, counted by the server over all matching entries.

import { bar } from "./bar.js";
import { digits, h, put, short } from "../lib/dom.js";
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
  /** Fields whose facets are collapsed. */
  const collapsed = new Set(FACETS.slice(OPEN_AT_FIRST).map(([field]) => field));
  return {
    element,
    show: (answer) =>
      put(
        element,
        h("h2", { class: "visually-hidden" }, "Most frequent values"),
        FACETS.map((definition) => facet(definition, answer, { filter, collapsed })),
      ),
    fail: (words) => put(element, h("p", { class: "error" }, `Counts unavailable: ${words}`)),
  };
}

/** Renders the facet of one field; null if the answer does not count the field. */
function facet([field, key, heading], answer, { filter, collapsed }) {
  const counts = answer.stats.by.find((known) => known.field === field);
  if (!counts) return null;
  const missing = field === "node_id" ? answer.nodes.filter(isMissing) : [];
  const most = Math.max(1, ...counts.top.map((value) => value.count));
  const element = h(
    "details",
    { open: !collapsed.has(field) },
    h("summary", {}, heading),
    h(
      "ul",
      {},
      counts.top.map(({ value, count }) => valueItem(key, value, count, count / most, filter)),
      missing.map(missingItem),
      restItems(counts, missing.length > 0),
    ),
  );
  element.addEventListener("toggle", () => (element.open ? collapsed.delete(field) : collapsed.add(field)));
  return element;
}

/** Renders one value with its count. `share` is the length of its bar, relative to the most frequent value. */
function valueItem(key, value, count, share, filter) {
  const label = short(value, 40);
  const exclude = h(
    "button",
    {
      type: "button",
      class: "link-button exclude",
      "aria-label": `Exclude ${label}`,
      title: "Exclude",
      onclick: () => filter(key, value, true),
    },
    "−",
  );
  return h(
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
      label,
    ),
    h("span", { class: "count" }, digits(count), " ", exclude),
    bar(share),
  );
}

/** Renders a node that is missing from the counts. */
function missingItem(node) {
  return h(
    "li",
    { class: "missing" },
    h("span", {}, node.node_id),
    h("span", { class: "count", title: node.reason }, "?", h("span", { class: "visually-hidden" }, " not counted")),
  );
}

/** Renders what the most frequent values leave out. */
function restItems(counts, hasMissing) {
  const { distinct, other, top } = counts;
  return [
    distinct === null && h("li", { class: "hint" }, "Too many distinct values to count."),
    other > 0 &&
      h(
        "li",
        { class: "hint" },
        h("span", {}, distinct ? `${digits(distinct - top.length)} others` : "others"),
        h("span", { class: "count" }, digits(other)),
      ),
    top.length === 0 && !hasMissing && distinct !== null && h("li", { class: "hint" }, "None."),
  ];
}
