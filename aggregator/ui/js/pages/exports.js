// Exports: past exports as recorded in the log (content, user, reason), and a form for a new export.

import { Problem, get, parameters } from "../lib/api.js";
import { banners } from "../components/banners.js";
import { digits, freshId, h, put, short, textOr } from "../lib/dom.js";
import { exportDialog } from "../components/export-dialog.js";
import { entryOf, integrityBadges, outcomeBadge, timeOf } from "../components/row.js";
import { may } from "../components/session.js";
import { start } from "../components/shell.js";
import { address } from "../lib/state.js";
import { everything, moment } from "../lib/time.js";

const HISTORY = { filter: "action:audit.export", from: "90d", limit: 50 };

start(async (main) => {
  const warn = banners({ retry: () => load() });
  const list = h("div", {}, h("p", { class: "hint" }, "Loading…"));
  const filter = h("input", {
    type: "text",
    id: freshId("filter"),
    class: "mono",
    spellcheck: "false",
    placeholder: "all entries",
  });
  const from = h("input", { type: "text", id: freshId("from"), value: "7d" });
  const to = h("input", { type: "text", id: freshId("to"), value: "now" });
  const open = () =>
    exportDialog(
      {
        filter: filter.value.trim(),
        from: from.value.trim() || "7d",
        to: to.value.trim() === "now" ? "" : to.value.trim(),
      },
      { done: () => load() },
    );
  main.append(
    h("h1", {}, "Exports"),
    warn.element,
    may("audit.export")
      ? h(
          "section",
          { class: "card" },
          h("h2", {}, "New export"),
          h("p", { class: "hint" }, "You can also export any view from the timeline."),
          h(
            "div",
            { class: "form-row" },
            field("Filter", filter, "field wide"),
            field("From", from),
            field("To (exclusive)", to),
            h("button", { type: "button", class: "primary", onclick: open }, "Export…"),
          ),
        )
      : h("p", { class: "callout" }, "Your role does not allow exports; auditors and admins can export."),
    h("h2", {}, "Exports in the last 90 days"),
    list,
  );
  document.addEventListener("zonechange", () => load());

  async function load(cursor = "") {
    const answer = await get(`/audit-log?${parameters({ ...HISTORY, cursor })}`).catch((error) => error);
    if (answer instanceof Error) {
      put(list, h("p", { class: "error" }, answer.message));
      if (answer instanceof Problem && answer.envelope) await warn.show(answer.envelope);
      return;
    }
    put(
      list,
      table(answer),
      h(
        "div",
        { class: "pagination" },
        h(
          "button",
          { type: "button", disabled: !answer.previous_cursor, onclick: () => load(answer.previous_cursor) },
          "‹ Newer",
        ),
        h(
          "button",
          { type: "button", disabled: !answer.next_cursor, onclick: () => load(answer.next_cursor) },
          "Older ›",
        ),
        h(
          "a",
          { href: address({ filter: HISTORY.filter, from: HISTORY.from, to: "", order: "desc" }) },
          "View in timeline",
        ),
      ),
    );
    await warn.show(answer);
  }
  await load();
});

const field = (words, input, name = "field") => h("div", { class: name }, h("label", { for: input.id }, words), input);

function table(answer) {
  if (answer.entries.length === 0)
    return h(
      "p",
      { class: "empty-state" },
      answer.complete
        ? answer.limited_to
          ? "No exports within your scope."
          : "No exports."
        : "No exports found, but not every node answered.",
    );
  const line = (row) => {
    const entry = entryOf(row);
    const details = typeof entry.details === "object" && entry.details !== null ? entry.details : {};
    const words = (value) => short(textOr(value, "–"), 120);
    const time = (value) => (timeOf({ entry: { timestamp: value } }) ? moment(value).slice(0, 16) : "–");
    return h(
      "tr",
      {},
      h(
        "td",
        {},
        timeOf(row) ? h("time", { datetime: timeOf(row), title: everything(timeOf(row)) }, moment(timeOf(row))) : "–",
      ),
      h("td", {}, words(entry.user)),
      h("td", {}, words(details.format ?? (details.seq ? "proof" : "–"))),
      h(
        "td",
        {},
        h(
          "code",
          {},
          words(textOr(details.filter) ?? (details.node ? `${details.node}/${details.seq}` : "(no filter)")),
        ),
      ),
      h("td", {}, details.from ? `${time(details.from)} to ${time(details.to)}` : "–"),
      h("td", { class: "numeric" }, Number.isInteger(details.rows) ? digits(details.rows) : "–"),
      h("td", {}, words(details.words)),
      h(
        "td",
        {},
        outcomeBadge(entry.outcome),
        details.complete === false && " PARTIAL",
        entry.reason && h("div", { class: "hint" }, words(entry.reason)),
      ),
      h("td", {}, integrityBadges(row)),
    );
  };
  return h(
    "div",
    { class: "table-container" },
    h(
      "table",
      {},
      h("caption", { class: "visually-hidden" }, "Exports"),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ["Time", "User", "Format", "Filter", "Range", "Entries", "Reason", "Outcome", "Integrity"].map((name) =>
            h("th", { scope: "col" }, name),
          ),
        ),
      ),
      h("tbody", {}, answer.entries.map(line)),
    ),
  );
}
