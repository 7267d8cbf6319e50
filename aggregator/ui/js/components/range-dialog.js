// Asks for a time range other than the presets.

import { dialog } from "./dialog.js";
import { freshId, h } from "../lib/dom.js";
import { EVERYTHING } from "../lib/state.js";

/** Opens the dialog. `apply({ from, to })` is called if the user confirms a range, `closed()` in any case. */
export function rangeDialog({ from, to }, { apply, closed }) {
  const field = (name, value, attributes) =>
    h("input", { type: "text", id: freshId(name), value, spellcheck: "false", ...attributes });
  const begin = field("from", from, { autofocus: true });
  const end = field("to", to || "now", {});
  const run = () => {
    const until = end.value.trim();
    apply({ from: begin.value.trim() || EVERYTHING, to: until === "now" ? "" : until });
  };
  dialog(
    "Custom range",
    [
      h("p", { class: "hint" }, "An age (24h, 7d), a day (2026-04-15), or a time in UTC (2026-04-15T08:00:00Z)."),
      h("label", { for: begin.id }, "From"),
      begin,
      h("label", { for: end.id }, "To (exclusive)"),
      end,
    ],
    [{ label: "Apply", primary: true, run }, { label: "Cancel" }],
    { closed },
  );
}
