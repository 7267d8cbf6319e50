// The timeline. Its state is stored in the URL, and every change of the state runs a new query.

import { Problem, get, getCounts, parameters } from "../lib/api.js";
import { banners } from "../components/banners.js";
import { announce, copy, digits, h, notice, put, visible } from "../lib/dom.js";
import { dialog } from "../components/dialog.js";
import { Drawer } from "../components/drawer.js";
import { exportDialog } from "../components/export-dialog.js";
import { COUNTED, facets } from "../components/facets.js";
import { add, term } from "../lib/filter.js";
import { FilterBar } from "../components/filter-bar.js";
import { Histogram } from "../components/histogram.js";
import { Follower } from "../components/follower.js";
import { printView } from "../components/print.js";
import { addressOf, keyOf, termsOf } from "../components/row.js";
import { RowTable } from "../components/rows.js";
import { savedSearches } from "../components/saved.js";
import { may } from "../components/session.js";
import { onKeys, start } from "../components/shell.js";
import { address, query, read } from "../lib/state.js";
import { bucketFor, micros, moment, widthText, zone } from "../lib/time.js";
import { weekBar } from "../components/week.js";

const PAGE_ROWS = 100;
const TOP = 10;
/** Pause before a failed request is retried in live mode. */
const TRY_AGAIN_MS = 15_000;
/** Bucket width for "All time", which begins in the year 1: narrower buckets would be too many. */
const EVERYTHING_BUCKET = 90 * 86_400;

start(async (main, me) => {
  const view = new TimelineView(main, me);
  view.layOut();
  await view.load();
});

const button = (label, title, run) => h("button", { type: "button", title, onclick: run }, label);

/** The page: its components, the state in the URL, and the current answer. */
class TimelineView {
  constructor(main, me) {
    this.main = main;
    this.me = me;
    this.state = read();
    /** Envelope of the current answer. */
    this.envelope = null;
    /** Cancels the running request. */
    this.asking = null;
    const narrow = (key, value, exclude) => this.narrow(key, value, exclude);
    this.live = new Follower({
      near: () => !this.entry.isOpen(),
      show: (items) => this.table.prepend(items),
      reload: () => this.load({ unattended: true }),
      ended: () => this.remember({ live: false }),
    });
    this.live.button.addEventListener("click", () => this.toggleLive());
    this.bar = new FilterBar({ change: (part) => this.change(part), actions: this.actions() });
    this.warn = banners({ retry: () => this.change({}) });
    this.chart = new Histogram({ zoom: (from, to) => this.zoomTo(from, to) });
    this.side = facets({ filter: narrow });
    this.table = new RowTable({ open: (row) => this.openRow(row), filter: narrow });
    this.entry = new Drawer({
      filter: narrow,
      step: (by) => this.table.move(by),
      moved: (row) => this.remember({ row: addressOf(row, this.envelope) }),
      closed: () => this.remember({ row: "" }),
    });
    this.week = weekBar();
    this.pager = h("div", { class: "pagination" });
  }

  actions() {
    const print = () => printView(this.state, this.me).catch((error) => notice(error.message, true));
    return [
      this.live.button,
      button("Saved", "Saved searches", () => savedSearches(this.state)),
      button("Copy link", "Copy a link to this view (y)", () => this.share()),
      may("audit.export") && button("Export", "Export (e)", () => exportDialog(this.state)),
      button("Print", "Print a report", print),
    ];
  }

  layOut() {
    this.table.redraw();
    const rows = h("div", {}, this.chart.element, this.live.counter, this.table.element, this.pager);
    this.main.append(
      h("h1", { class: "visually-hidden" }, "Timeline"),
      this.week.element,
      this.warn.element,
      this.bar.element,
      h("div", { class: "layout" }, this.side.element, rows),
    );
    addEventListener("popstate", () => {
      this.state = read();
      this.entry.close();
      this.load();
    });
    document.addEventListener("zonechange", () => {
      this.table.redraw();
      this.chart.redraw();
    });
    this.listenToKeys();
    this.week.load();
  }

  listenToKeys() {
    const step = (by) => () => (this.entry.isOpen() ? this.entry.move(by) : this.table.move(by));
    const pick = (exclude) => () => this.withSelected((row) => this.pickValue(row, exclude));
    onKeys({
      "/": ["focus the filter", () => this.bar.focus()],
      j: ["next entry", step(1)],
      k: ["previous entry", step(-1)],
      Enter: ["open the entry", () => this.withSelected((row) => this.openRow(row))],
      Escape: ["close the entry", () => this.entry.close()],
      "[": ["previous entry", step(-1)],
      "]": ["next entry", step(1)],
      f: ["filter by a value of this entry", pick(false)],
      x: ["exclude a value of this entry", pick(true)],
      l: ["toggle live mode", () => this.toggleLive()],
      ".": ["show new entries", () => this.live.showNew()],
      e: ["export", () => may("audit.export") && exportDialog(this.state)],
      y: ["copy a link to this view", () => this.share()],
    });
  }

  /** Zooms in. A range selects by recorded time; a selection by time of occurrence becomes a filter condition. */
  zoomTo(from, to) {
    const occurred = this.state.axis === "occurred";
    this.change(occurred ? { filter: add(this.state.filter, `occurred:${from}..${to}`) } : { from, to });
  }

  /** Opens another view. Live mode continues only if new entries can be shown: on the first page of an open range. */
  change(part) {
    this.state = { ...this.state, cursor: "", row: "", ...part };
    if (this.state.cursor || this.state.to || this.state.order === "asc") this.state.live = false;
    history.pushState(null, "", address(this.state));
    this.entry.close();
    this.load();
  }

  /** Stores a part of the state in the URL without a new query. */
  remember(part) {
    this.state = { ...this.state, ...part };
    history.replaceState(null, "", address(this.state));
  }

  narrow(key, value, exclude) {
    this.change({ filter: add(this.state.filter, term(key, value, exclude)) });
  }

  async load({ unattended = false } = {}) {
    this.asking?.abort();
    this.asking = new AbortController();
    const { signal } = this.asking;
    this.live.stop();
    // A request that the user did not cause must not overwrite a half-typed filter.
    if (!unattended) this.bar.show(this.state);
    // Until the answer arrives, the rows on the page are those of another query.
    document.body.classList.add("loading");
    this.table.element.setAttribute("aria-busy", "true");
    try {
      const { order, cursor } = this.state;
      const asked = parameters({ ...query(this.state), order, cursor, limit: PAGE_ROWS });
      const answer = await get(`/audit-log?${asked}`, signal, { unattended });
      this.show(answer, unattended);
      await this.loadCounts(answer, signal, unattended);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.failed(error);
      if (this.state.live) this.continueFollowing(error, signal);
    }
  }

  /** Continues live mode after a failed request: at once if the error lists the nodes, otherwise after a retry. */
  continueFollowing(error, signal) {
    if (error.envelope) {
      this.live.start(error.envelope, this.state.filter);
      return;
    }
    setTimeout(() => {
      if (this.state.live && !signal.aborted) this.load({ unattended: true });
    }, TRY_AGAIN_MS);
  }

  answered() {
    document.body.classList.remove("stale", "loading");
    this.table.element.removeAttribute("aria-busy");
  }

  show(answer, unattended) {
    const { state } = this;
    this.envelope = answer;
    this.answered();
    // Show missing and broken nodes first: no row may prevent users from seeing them.
    this.warn.show(answer, state.order, { unattended }).catch((error) => notice(error.message, true));
    const pairs = this.table.show(answer.entries, answer, state.order, state.axis);
    performance.mark("rows");
    this.drawPager(answer, pairs);
    announce(`${answer.count} entries, ${answer.answered} of ${answer.expected} nodes`);
    if (state.row && !this.entry.isOpen() && !unattended) this.openPlace(state.row);
    if (this.state.live) this.live.start(answer, this.state.filter);
  }

  /** Keeps the old rows, greyed out, unless the filter is invalid. */
  failed(error) {
    this.answered();
    if (!(error instanceof Problem)) {
      notice(`Unexpected error on this page: ${error.message}`, true);
      throw error;
    }
    announce(error.message, true);
    if (error.status === 400) {
      this.bar.fail(error);
      this.table.clear("Invalid filter; see the message above.");
      put(this.pager);
      for (const part of [this.chart, this.side]) part.fail("invalid filter");
      return;
    }
    document.body.classList.add("stale");
    put(
      this.pager,
      h("p", { class: "error" }, `${error.message}; showing stale results.`),
      h("button", { type: "button", onclick: () => this.load() }, "Try again"),
    );
    if (error.envelope) this.warn.show(error.envelope, this.state.order);
  }

  async loadCounts(answer, signal, unattended) {
    let width = bucketOf(answer);
    const { axis } = this.state;
    const count = () => {
      const bucket = widthText(width);
      const shown = axis === "occurred" ? "occurred" : "";
      const asked = parameters({ ...query(this.state), by: COUNTED, top: TOP, bucket, axis: shown });
      return getCounts(`/stats?${asked}`, signal, { unattended });
    };
    try {
      let counted = await count();
      // Only now is it known over how long the entries of the range occurred: within a day, or over years.
      const finer = axis === "occurred" ? bucketFor(spanOf(counted, width)) : width;
      if (finer < width) {
        width = finer;
        counted = await count();
      }
      this.chart.show(counted, width, axis);
      this.side.show(counted);
      performance.mark("counts");
    } catch (error) {
      if (error.name === "AbortError") return;
      for (const part of [this.chart, this.side]) part.fail(error.message);
    }
  }

  drawPager(answer, pairs) {
    const { pager, state } = this;
    const [newer, older] = state.order === "desc" ? ["Newer", "Older"] : ["Older", "Newer"];
    const turn = (label, cursor, name) => {
      const run = () => {
        this.change({ cursor });
        scrollTo(0, 0);
      };
      return h("button", { type: "button", class: name, disabled: !cursor, onclick: run }, label);
    };
    const focused = pager.contains(document.activeElement) ? document.activeElement.className : "";
    put(
      pager,
      turn(`‹ ${newer}`, answer.previous_cursor, "previous"),
      turn(`${older} ›`, answer.next_cursor, "next"),
      state.cursor && h("button", { type: "button", onclick: () => this.change({}) }, "First page"),
      h("p", { class: "result-summary" }, statementOf(answer, pairs, state)),
      this.hints(answer),
    );
    if (focused) pager.querySelector(`button.${focused}:not(:disabled)`)?.focus();
  }

  /** Returns hints about entries that the answer does not contain, and about the query. */
  hints(answer) {
    const hint = (...content) => h("p", { class: "hint" }, ...content);
    const { order } = this.state;
    const lines = [];
    if (answer.searched_to) {
      const end = `${order === "desc" ? "back" : "up"} to ${moment(answer.searched_to)}`;
      lines.push(hint(`Searched ${end} so far; the rest has not been searched yet.`));
    }
    if (answer.erased > 0) {
      const rows = answer.erased === 1 ? "entry" : "entries";
      const showThem = h(
        "button",
        { type: "button", onclick: () => this.change({ filter: "is:erased" }) },
        "show them",
      );
      lines.push(hint(`${digits(answer.erased)} erased ${rows} in this range cannot be searched; `, showThem));
    }
    for (const text of answer.filter_hints ?? []) lines.push(hint(`Hint: ${visible(text)}`));
    if (answer.unindexed_texts?.length > 0) {
      const texts = answer.unindexed_texts.join(", ");
      lines.push(hint(visible(`Too short for the index, so all entries were read: ${texts}`)));
    }
    return lines;
  }

  openRow(row, answer = this.envelope) {
    this.table.select(keyOf(row), { focus: false });
    this.remember({ row: addressOf(row, answer) });
    this.entry.open(row, answer);
  }

  /** Opens the row that the URL names, which may be on another page. */
  async openPlace(place) {
    const here = this.table.rows().find((row) => addressOf(row, this.envelope) === place);
    if (here) {
      this.openRow(here);
      return;
    }
    const [where, generation] = place.split("@");
    const [node, seq] = where.split("/");
    try {
      const log = generation ? `?generation=${encodeURIComponent(generation)}` : "";
      const answer = await get(`/audit-log/${encodeURIComponent(node)}/${encodeURIComponent(seq)}${log}`);
      if (this.state.row === place && answer.entries[0]) this.openRow(answer.entries[0], answer);
    } catch (error) {
      notice(`${place}: ${error.message}`, true);
    }
  }

  withSelected(run) {
    const row = this.table.selectedRow();
    if (row) run(row);
  }

  /** Lets the user pick a value of a row to filter by, with the keyboard as well as the mouse. */
  pickValue(row, exclude) {
    const choices = termsOf(row).map(({ key, value, text }) => ({
      label: visible(text),
      run: () => this.narrow(key, value, exclude),
    }));
    dialog(exclude ? "Exclude…" : "Filter by…", [], choices);
  }

  /** Copies a link with absolute times and the time zone, so that it shows the same to every user. */
  share() {
    const { envelope, state } = this;
    const end = envelope?.to.startsWith("9999") ? new Date().toISOString() : envelope?.to;
    const fixed = envelope ? { ...state, from: envelope.from, to: end } : state;
    const link = new URL(address({ ...fixed, live: false, cursor: "" }), location.origin);
    link.searchParams.set("zone", zone.get());
    copy(link.href, "Link");
  }

  toggleLive() {
    if (this.state.live) {
      this.live.stop();
      this.remember({ live: false });
    } else {
      this.change({ live: true, order: "desc", to: "" });
    }
  }
}

/** Returns the statement below the rows: entries, nodes, verified rows, certainty of the order, and completeness. */
function statementOf(answer, pairs, state) {
  const sum = (name) => answer.nodes.reduce((total, node) => total + node[name], 0);
  const more = answer.more ? `, ${state.order === "desc" ? "older" : "newer"} entries follow` : "";
  const broken = sum("invalid") > 0 ? `, VIOLATIONS: ${digits(sum("invalid"))}` : "";
  return [
    `${state.live ? "As of the last load: " : ""}${digits(answer.count)} entries on this page${more}`,
    `${answer.answered}/${answer.expected} nodes`,
    `${digits(sum("verified"))} verified${broken}`,
    pairs > 0 ? `order uncertain for ${digits(pairs)} pairs (~)` : "order certain",
    visible(answer.completeness),
  ].join(" · ");
}

/** Returns the seconds from the start of the first non-empty bucket to the end of the last. */
function spanOf(counted, width) {
  const buckets = counted.stats.histogram?.buckets ?? [];
  return buckets.length === 0 ? width : (micros(buckets.at(-1).from) - micros(buckets[0].from)) / 1e6 + width;
}

/** Returns a bucket width for the range of an answer. */
function bucketOf(answer) {
  const end = answer.to.startsWith("9999") ? Date.now() * 1000 : micros(answer.to);
  const seconds = Math.max(1, (end - micros(answer.from)) / 1e6);
  return answer.from.startsWith("0001") ? EVERYTHING_BUCKET : bucketFor(seconds);
}
