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
  const view = new ExportsView(main);
  await view.load();
});

/** The page: a form for a new export, and one page of past exports. */
class ExportsView {
  constructor(main) {
    this.warn = banners({ retry: () => this.load() });
    this.list = h("div", {}, h("p", { class: "hint" }, "Loading…"));
    main.append(
      h("h1", {}, "Exports"),
      this.warn.element,
      may("audit.export")
        ? exportForm(() => this.load())
        : h("p", { class: "callout" }, "Your role does not allow exports; auditors and admins can export."),
      h("h2", {}, "Exports in the last 90 days"),
      this.list,
    );
    document.addEventListener("zonechange", () => this.load());
  }

  async load(cursor = "") {
    const answer = await get(`/audit-log?${parameters({ ...HISTORY, cursor })}`).catch((error) => error);
    if (answer instanceof Error) {
      put(this.list, h("p", { class: "error" }, answer.message));
      if (answer instanceof Problem && answer.envelope) await this.warn.show(answer.envelope);
      return;
    }
    put(this.list, table(answer), this.pagination(answer));
    await this.warn.show(answer);
  }

  pagination(answer) {
    const turn = (label, cursor) =>
      h("button", { type: "button", disabled: !cursor, onclick: () => this.load(cursor) }, label);
    const { filter, from } = HISTORY;
    return h(
      "div",
      { class: "pagination" },
      turn("‹ Newer", answer.previous_cursor),
      turn("Older ›", answer.next_cursor),
      h("a", { href: address({ filter, from, to: "", order: "desc" }) }, "View in timeline"),
    );
  }
}

/** Renders the form for a new export. `done()` is called after each finished export. */
function exportForm(done) {
  const filter = h("input", {
    type: "text",
    id: freshId("filter"),
    class: "mono",
    spellcheck: "false",
    placeholder: "all entries",
  });
  const from = h("input", { type: "text", id: freshId("from"), value: "7d" });
  const to = h("input", { type: "text", id: freshId("to"), value: "now" });
  const open = () => {
    const end = to.value.trim();
    const range = { from: from.value.trim() || "7d", to: end === "now" ? "" : end };
    exportDialog({ filter: filter.value.trim(), ...range }, { done });
  };
  return h(
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
  );
}

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
