// The timeline: one state, stored in the URL; every change of it queries the server again.

import { Problem, get, getCounts, parameters } from "./api.js";
import { banners } from "./banners.js";
import { announce, copy, digits, h, notice, put, visible } from "./dom.js";
import { dialog } from "./dialog.js";
import { drawer } from "./drawer.js";
import { exportDialog } from "./export-dialog.js";
import { COUNTED, facets } from "./facets.js";
import { add, term } from "./filter.js";
import { filterBar } from "./filter-bar.js";
import { histogram } from "./histogram.js";
import { follower } from "./follower.js";
import { printView } from "./print.js";
import { addressOf, keyOf, termsOf } from "./row.js";
import { rowTable } from "./rows.js";
import { savedSearches } from "./saved.js";
import { may } from "./session.js";
import { onKeys, start } from "./shell.js";
import { address, query, read } from "./state.js";
import { bucketFor, micros, moment, widthText, zone } from "./time.js";
import { weekBar } from "./week.js";

const PAGE_ROWS = 100;
const TOP = 10;
/** Pause before a page that follows retries a failed request. */
const TRY_AGAIN_MS = 15_000;
/** "Everything" begins in the year 1, so its buckets are wide; otherwise there would be too many. */
const EVERYTHING_BUCKET = 90 * 86_400;

start(async (main, me) => {
  const view = makeView(main, me);
  view.layOut();
  await view.load();
});

function makeView(main, me) {
  let state = read();
  let envelope = null;
  let asking = null;

  const button = (label, title, run) => h("button", { type: "button", title, onclick: run }, label);
  const live = follower({
    near: () => !entry.isOpen(),
    show: (items) => table.prepend(items),
    reload: () => load({ unattended: true }),
    ended: () => remember({ live: false }),
  });
  live.button.addEventListener("click", () => toggleLive());
  const actions = [live.button,
    button("Saved", "Saved searches", () => savedSearches(state)),
    button("Copy link", "Link to this view (y)", () => share()),
    may("audit.export") && button("Export", "Export (e)", () => exportDialog(state)),
    button("Print", "Print a report", () => printView(state, me).catch((error) => notice(error.message, true)))];
  const bar = filterBar({ change, actions });
  const warn = banners({ retry: () => change({}) });
  // A range selects by the recorded time; for the time of occurrence, the selection becomes a filter condition.
  const zoomTo = (from, to) => change(state.axis === "occurred" ? { filter: add(state.filter, `occurred:${from}..${to}`) } : { from, to });
  const chart = histogram({ zoom: zoomTo });
  const side = facets({ filter: narrow });
  const table = rowTable({ open: (row) => openRow(row), filter: narrow });
  const entry = drawer({ filter: narrow, step: (by) => table.move(by), moved: (row) => remember({ row: addressOf(row, envelope) }), closed: () => remember({ row: "" }) });
  const week = weekBar();
  const pager = h("div", { class: "pager" });

  function layOut() {
    table.redraw();
    main.append(h("h1", { class: "unseen" }, "Timeline"), week.element, warn.element, bar.element, h("div", { class: "layout" }, side.element, h("div", {}, chart.element, live.counter, table.element, pager)));
    addEventListener("popstate", () => { state = read(); entry.close(); load(); });
    document.addEventListener("zonechange", () => { table.redraw(); chart.redraw(); });
    const step = (by) => () => (entry.isOpen() ? entry.move(by) : table.move(by));
    onKeys({
      "/": ["the filter", bar.focus],
      j: ["next row", step(1)],
      k: ["previous row", step(-1)],
      Enter: ["open the row", () => withChosen(openRow)],
      Escape: ["close the entry", () => entry.close()],
      "[": ["previous entry", step(-1)],
      "]": ["next entry", step(1)],
      f: ["only rows with a value of this row", () => withChosen((row) => pickValue(row, false))],
      x: ["without a value of this row", () => withChosen((row) => pickValue(row, true))],
      l: ["live mode", toggleLive],
      ".": ["show new entries", live.showWaiting],
      e: ["export", () => may("audit.export") && exportDialog(state)],
      y: ["copy a link to this view", share],
    });
    week.load();
  }

  /** Switches to another view. Following continues only where new rows can be shown: at the top of an open range. */
  function change(part) {
    state = { ...state, cursor: "", row: "", ...part };
    if (state.cursor || state.to || state.order === "asc") state.live = false;
    history.pushState(null, "", address(state));
    entry.close();
    load();
  }

  function remember(part) {
    state = { ...state, ...part };
    history.replaceState(null, "", address(state));
  }

  function narrow(key, value, exclude) {
    change({ filter: add(state.filter, term(key, value, exclude)) });
  }

  async function load({ unattended = false } = {}) {
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking;
    live.stop();
    // A request that the page makes by itself must not overwrite a half-typed filter.
    if (!unattended) bar.show(state);
    // Until the answer arrives, the rows shown belong to another query.
    document.body.classList.add("asking");
    table.element.setAttribute("aria-busy", "true");
    try {
      const asked = parameters({ ...query(state), order: state.order, cursor: state.cursor, limit: PAGE_ROWS });
      const answer = await get(`/audit-log?${asked}`, signal, { unattended });
      show(answer, unattended);
      await loadCounts(answer, signal, unattended);
    } catch (error) {
      if (error.name === "AbortError") return;
      failed(error);
      if (state.live) goOnFollowing(error, signal);
    }
  }

  /** Keeps following after a failed answer: with a list of nodes it continues at once, otherwise it is tried again. */
  function goOnFollowing(error, signal) {
    if (error.envelope) return live.start(error.envelope, state.filter);
    return setTimeout(() => { if (state.live && !signal.aborted) load({ unattended: true }); }, TRY_AGAIN_MS);
  }

  function answered() {
    document.body.classList.remove("stale", "asking");
    table.element.removeAttribute("aria-busy");
  }

  function show(answer, unattended) {
    envelope = answer;
    answered();
    // Show missing and broken nodes first: nothing in a row may keep them from being seen.
    warn.show(answer, state.order, { unattended }).catch((error) => notice(error.message, true));
    const pairs = table.show(answer.entries, answer, state.order, state.axis);
    performance.mark("rows");
    drawPager(answer, pairs);
    announce(`${answer.count} entries, ${answer.answered} of ${answer.expected} nodes`);
    if (state.row && !entry.isOpen() && !unattended) openPlace(state.row);
    if (state.live) live.start(answer, state.filter);
  }

  /** Keeps the old rows, greyed, unless the query itself is wrong. */
  function failed(error) {
    answered();
    if (!(error instanceof Problem)) {
      notice(`This page has failed: ${error.message}`, true);
      throw error;
    }
    if (error.status === 400) {
      bar.fail(error);
      table.clear("Invalid filter; see the message above.");
      put(pager);
      for (const part of [chart, side]) part.fail("invalid filter");
      return announce(error.message, true);
    }
    document.body.classList.add("stale");
    put(pager, h("p", { class: "error" }, `${error.message}; showing stale results.`), h("button", { type: "button", onclick: () => load() }, "Try again"));
    if (error.envelope) warn.show(error.envelope, state.order);
    return announce(error.message, true);
  }

  async function loadCounts(answer, signal, unattended) {
    let width = bucketOf(answer);
    const count = () => getCounts(`/stats?${parameters({ ...query(state), by: COUNTED, top: TOP, bucket: widthText(width), axis: state.axis === "occurred" ? "occurred" : "" })}`, signal, { unattended });
    try {
      let counted = await count();
      // Entries recorded within the range may have occurred within a day, or over years; that is known only now.
      const finer = state.axis === "occurred" ? bucketFor(spanOf(counted, width)) : width;
      if (finer < width) {
        width = finer;
        counted = await count();
      }
      chart.show(counted, width, state.axis);
      side.show(counted);
      performance.mark("counts");
    } catch (error) {
      if (error.name === "AbortError") return;
      for (const part of [chart, side]) part.fail(error.message);
    }
  }

  function drawPager(answer, pairs) {
    const [newer, older] = state.order === "desc" ? ["Newer", "Older"] : ["Older", "Newer"];
    const sum = (name) => answer.nodes.reduce((total, node) => total + node[name], 0);
    const turn = (label, cursor, name) => h("button", { type: "button", class: name, disabled: !cursor, onclick: () => { change({ cursor }); scrollTo(0, 0); } }, label);
    const focused = pager.contains(document.activeElement) ? document.activeElement.className : "";
    put(pager,
      turn(`‹ ${newer}`, answer.previous_cursor, "previous"), turn(`${older} ›`, answer.next_cursor, "next"),
      state.cursor && h("button", { type: "button", onclick: () => change({}) }, "First page"),
      h("p", { class: "statement" }, [
        `${state.live ? "At the last load: " : ""}${digits(answer.count)} entries here${answer.more ? `, ${state.order === "desc" ? "older" : "newer"} ones follow` : ""}`, `${answer.answered}/${answer.expected} nodes`, `${digits(sum("verified"))} verified${sum("invalid") > 0 ? `, ${digits(sum("invalid"))} BROKEN` : ""}`,
        pairs > 0 ? `order uncertain for ${digits(pairs)} pairs (~)` : "order certain", visible(answer.completeness),
      ].join(" · ")));
    if (answer.searched_to) pager.append(h("p", { class: "hint" }, `Searched ${state.order === "desc" ? "back" : "up"} to ${moment(answer.searched_to)} so far; the rest has not been searched yet.`));
    if (answer.erased > 0) pager.append(h("p", { class: "hint" }, `${digits(answer.erased)} erased ${answer.erased === 1 ? "row" : "rows"} of this range cannot be searched; `, h("button", { type: "button", onclick: () => change({ filter: "is:erased" }) }, "show where")));
    for (const hint of answer.filter_hints ?? []) pager.append(h("p", { class: "hint" }, `Hint: ${visible(hint)}`));
    if (answer.unindexed_texts?.length > 0) pager.append(h("p", { class: "hint" }, visible(`Too short for the index, so all rows were read: ${answer.unindexed_texts.join(", ")}`)));
    if (focused) pager.querySelector(`button.${focused}:not(:disabled)`)?.focus();
  }

  function openRow(row, answer = envelope) {
    table.choose(keyOf(row), { focus: false });
    remember({ row: addressOf(row, answer) });
    entry.open(row, answer);
  }

  /** Opens the row that the URL names; it may be on another page. */
  async function openPlace(place) {
    const here = table.rows().find((row) => addressOf(row, envelope) === place);
    if (here) return openRow(here);
    const [where, generation] = place.split("@");
    const [node, seq] = where.split("/");
    try {
      const log = generation ? `?generation=${encodeURIComponent(generation)}` : "";
      const answer = await get(`/audit-log/${encodeURIComponent(node)}/${encodeURIComponent(seq)}${log}`);
      if (state.row === place && answer.entries[0]) openRow(answer.entries[0], answer);
    } catch (error) {
      notice(`${place}: ${error.message}`, true);
    }
    return undefined;
  }

  function withChosen(run) {
    const row = table.chosen();
    if (row) run(row);
  }

  /** Lets the user choose which value of a row to filter by, with keys as well as with the mouse. */
  function pickValue(row, exclude) {
    dialog(exclude ? "Without…" : "Only…", [], termsOf(row).map(({ key, value, text }) => ({ label: visible(text), run: () => narrow(key, value, exclude) })));
  }

  /** Copies a link with the range and the zone as they were answered, so that it shows the same to every user. */
  function share() {
    const fixed = envelope ? { ...state, from: envelope.from, to: envelope.to.startsWith("9999") ? new Date().toISOString() : envelope.to } : state;
    const link = new URL(address({ ...fixed, live: false, cursor: "" }), location.origin);
    link.searchParams.set("zone", zone.get());
    copy(link.href, "Link");
  }

  function toggleLive() {
    if (state.live) {
      live.stop();
      remember({ live: false });
    } else {
      change({ live: true, order: "desc", to: "" });
    }
  }

  return { layOut, load };
}

/** Seconds from the first bucket that has entries to the end of the last. */
function spanOf(counted, width) {
  const buckets = counted.stats.histogram?.buckets ?? [];
  return buckets.length === 0 ? width : (micros(buckets.at(-1).from) - micros(buckets[0].from)) / 1e6 + width;
}

/** Returns a bucket width for the range as it was answered. */
function bucketOf(answer) {
  const end = answer.to.startsWith("9999") ? Date.now() * 1000 : micros(answer.to);
  const seconds = Math.max(1, (end - micros(answer.from)) / 1e6);
  return answer.from.startsWith("0001") ? EVERYTHING_BUCKET : bucketFor(seconds);
}
