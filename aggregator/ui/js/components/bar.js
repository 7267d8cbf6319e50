// A horizontal bar that shows a share of a whole.

import { svg } from "../lib/dom.js";

/** Renders a share between 0 and 1. Screen readers skip it, because the number is next to it. */
export const bar = (share) =>
  svg(
    "svg",
    { class: "bar", viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { width: share * 100, height: 4 }),
  );
