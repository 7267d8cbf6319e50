// Live mode: new entries appear at the top, or are buffered and counted while the page is scrolled or an entry is open.
// When the state of a node changes, the page is reloaded, because the completeness of all entries may change.

import { announce, digits, h, notice, put, visible } from "../lib/dom.js";
import { follow } from "./live.js";
import { isBroken, isMissing } from "./node-words.js";
import { placeOf } from "./row.js";
import { moment } from "../lib/time.js";

/** Distance from the top of the page within which new entries are shown at once. */
const NEAR_TOP_PIXELS = 60;
/** Minimum interval between reloads because of a node whose tail works but whose answers fail. */
const TRY_AGAIN_MS = 15_000;
/** Maximum number of buffered entries; beyond it the oldest are dropped, and a message says so. */
const WAITING_MAX = 1_000;

/**
 * Creates live mode. `near()` returns whether new entries may be shown at once, `show(items)` adds them at the top and
 * returns how many older ones were removed, `reload()` reloads the page, `ended()` is called when live mode has ended.
 */
export function follower({ near, show, reload, ended }) {
  const button = h("button", { type: "button", "aria-pressed": "false", title: "Toggle live mode (l)" }, "Live");
  const counter = h("div", { class: "new-entries" });
  let tail = null;
  let waiting = [];
  let lost = 0;
  let drawing = 0;
  /** State of each node: "ok", "missing" or "broken". Only a change of state reloads the page. */
  let known = new Map();
  const messages = [];
  const lastTried = new Map();
  const reasons = new Set();
  let saidLost = false;

  function start(envelope, filter) {
    const now = new Map(
      envelope.nodes.map((node) => [node.node_id, isMissing(node) ? "missing" : isBroken(node) ? "broken" : "ok"]),
    );
    // The tail's report about a node is newer than the answer, unless the answer is worse.
    for (const [node, was] of known) if (now.get(node) === "ok" && was !== "ok") now.set(node, was);
    known = now;
    // Start after the head of every node at the time of the answer, so that no row is left out and none is repeated.
    const after = envelope.nodes
      .filter((node) => node.generation && node.status !== "excluded")
      .map((node) => `${node.node_id}:${node.generation}:${node.head_seq === null ? 0 : node.head_seq + 1}`)
      .join(",");
    tail = follow(
      { filter, after },
      {
        row: (row) => {
          arrived({ row: { ...row, live: true } });
          if (row.integrity === "violation")
            happened(
              row.found_at?.node_id,
              "broken",
              `${row.found_at?.node_id} sent an entry with an invalid signature`,
              placeOf(row),
            );
        },
        node: (event, words) =>
          happened(
            event.node_id,
            event.status === "ok" ? "ok" : event.status === "invalid" ? "broken" : "missing",
            words,
            event.reason,
          ),
        beat,
        slow: (words) => arrived({ message: `— ${words} —` }),
        broken: () => drawButton("Live: reconnecting…"),
        ended: (words) => {
          tail = null;
          drawButton("Live");
          if (words) {
            notice(`Live mode ended: ${words}`, true);
            ended();
          }
        },
      },
    );
    drawButton("Live…");
    for (const words of messages.splice(0)) arrived({ message: words });
  }

  function beat({ watermark, complete, nodes }) {
    if (watermark) drawButton(`Live, complete up to ${moment(watermark)}${complete ? "" : ", except missing nodes"}`);
    // The tail reports no change of a node that was missing only from the page's answer, so detect its return here.
    for (const { node_id: node, status } of nodes) {
      const tried = Date.now() - (lastTried.get(node) ?? 0) < TRY_AGAIN_MS;
      if (status !== "ok" || known.get(node) !== "missing" || tried) continue;
      lastTried.set(node, Date.now());
      happened(node, "ok", `${node} is back`);
    }
  }

  /**
   * Handles a change of a node's state. A state that was already reported is ignored, unless a broken node has a new
   * reason.
   */
  function happened(node, now, words, reason = "") {
    const heard = `${node} ${now} ${reason}`;
    if (!node || (known.get(node) === now && (now !== "broken" || reasons.has(heard)))) return;
    known.set(node, now);
    reasons.add(heard);
    announce(words, true);
    messages.push(`— ${visible(words)} —`);
    reload();
  }

  function drawButton(words) {
    button.setAttribute("aria-pressed", String(Boolean(tail)));
    button.textContent = words;
  }

  function arrived(item) {
    waiting.push(item);
    if (waiting.length > WAITING_MAX) lost += waiting.length - WAITING_MAX;
    waiting = waiting.slice(-WAITING_MAX);
    // Render once for all entries that arrive together.
    if (!drawing) drawing = requestAnimationFrame(draw);
  }

  function draw() {
    drawing = 0;
    if (scrollY < NEAR_TOP_PIXELS && near()) return showWaiting();
    const rows = waiting.filter((one) => one.row).length;
    const all = digits(rows + lost);
    put(
      counter,
      waiting.length > 0 &&
        h(
          "button",
          { type: "button", class: "primary", onclick: showWaiting },
          rows + lost === 1 ? "1 new entry (press .)" : `${all} new entries (press .)`,
        ),
    );
    if (rows % 10 === 1) announce(`${all} new entries`);
    return undefined;
  }

  function showWaiting() {
    const gone = lost + (show(waiting) ?? 0);
    if (gone > 0 && !saidLost)
      notice(`Only the newest ${digits(WAITING_MAX)} entries are kept on this page; reload it to see the others`);
    saidLost ||= gone > 0;
    waiting = [];
    lost = 0;
    put(counter);
  }

  function stop() {
    tail?.stop();
    tail = null;
    waiting = [];
    lost = 0;
    put(counter);
    drawButton("Live");
  }

  return { button, counter, start, stop, showWaiting };
}
