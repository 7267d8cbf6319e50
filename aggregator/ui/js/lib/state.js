// State of the timeline, stored in the URL, so that a link shows the same view to every user with access to it.

import { zone } from "./time.js";

/** Default filter: hides Piperoll's own entries, which would bury the others. It is a chip like any other. */
export const FIRST_FILTER = "-category:audit";
export const EVERYTHING = "0001-01-01";

/** Presets of the time range: API parameter and label. */
export const RANGES = [
  ["15m", "Last 15 minutes"],
  ["1h", "Last hour"],
  ["24h", "Last 24 hours"],
  ["7d", "Last 7 days"],
  ["30d", "Last 30 days"],
  ["90d", "Last 90 days"],
  ["365d", "Last year"],
  [EVERYTHING, "All time"],
];

export function read(search = location.search) {
  const asked = new URLSearchParams(search);
  return {
    filter: asked.get("filter") ?? FIRST_FILTER,
    from: asked.get("from") || "7d",
    to: asked.get("to") ?? "",
    order: asked.get("order") === "asc" ? "asc" : "desc",
    // The time to show; range, order and completeness always refer to the time at which an entry was recorded.
    axis: asked.get("axis") === "occurred" ? "occurred" : "recorded",
    cursor: asked.get("cursor") ?? "",
    row: asked.get("row") ?? "",
    live: asked.get("live") === "1",
  };
}

/** Returns the URL of a view. */
export function address(state) {
  const found = new URLSearchParams();
  found.set("filter", state.filter);
  if (state.from !== "7d") found.set("from", state.from);
  if (state.to) found.set("to", state.to);
  if (state.order === "asc") found.set("order", "asc");
  if (state.axis === "occurred") found.set("axis", "occurred");
  if (state.cursor) found.set("cursor", state.cursor);
  if (state.row) found.set("row", state.row);
  if (state.live) found.set("live", "1");
  if (zone.get() === "local" || new URLSearchParams(location.search).has("zone")) found.set("zone", zone.get());
  return `/?${found}`;
}

/** Returns the API parameters of a view, without its cursor. */
export const query = (state) => ({ filter: state.filter, from: state.from, to: state.to });

export function rangeWords(state) {
  const preset = RANGES.find(([from]) => from === state.from && !state.to);
  return preset ? preset[1] : `${state.from} to ${state.to || "now"}`;
}
