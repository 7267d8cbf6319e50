// Live mode: new entries appear at the top, or are buffered and counted while the page is scrolled or an entry is open.
// When the state of a node changes, the page is reloaded, because the completeness of all entries may change.

import { announce, h, notice, visible } from "../lib/dom.js";
import { EntryBuffer } from "./entry-buffer.js";
import { follow } from "./live.js";
import { NodeStates, stateOfEvent } from "./node-states.js";
import { placeOf } from "./row.js";
import { moment } from "../lib/time.js";

/**
 * Live mode. `near()` returns whether new entries may be shown at once, `show(items)` adds them at the top and returns
 * how many older ones were removed, `reload()` reloads the page, `ended()` is called when live mode has ended.
 */
export class Follower {
  #reload;
  #ended;
  #buffer;
  #states = new NodeStates();
  /** The open tail, or null. */
  #tail = null;
  /** Messages about nodes, to be shown after the reload. */
  #messages = [];
  button = h("button", { type: "button", "aria-pressed": "false", title: "Toggle live mode (l)" }, "Live");

  constructor({ near, show, reload, ended }) {
    this.#reload = reload;
    this.#ended = ended;
    this.#buffer = new EntryBuffer({ near, show });
    this.counter = this.#buffer.counter;
  }

  /** Follows a filter after an answer. */
  start(envelope, filter) {
    this.#states.adopt(envelope.nodes);
    this.#tail = follow(
      { filter, after: positionsAfter(envelope.nodes) },
      {
        row: (row) => this.#onRow(row),
        node: (event, words) => this.#onState(event.node_id, stateOfEvent(event), words, event.reason),
        beat: (report) => this.#onBeat(report),
        slow: (words) => this.#buffer.add({ message: `— ${words} —` }),
        broken: () => this.#setLabel("Live: reconnecting…"),
        ended: (words) => this.#onEnded(words),
      },
    );
    this.#setLabel("Live…");
    for (const message of this.#messages.splice(0)) this.#buffer.add({ message });
  }

  /** Ends live mode, and discards the buffered entries. */
  stop() {
    this.#tail?.stop();
    this.#tail = null;
    this.#buffer.clear();
    this.#setLabel("Live");
  }

  /** Shows the buffered entries. */
  showNew() {
    this.#buffer.flush();
  }

  #onRow(row) {
    this.#buffer.add({ row: { ...row, live: true } });
    if (row.integrity !== "violation") return;
    const node = row.found_at?.node_id;
    this.#onState(node, "broken", `${node} sent an entry with an invalid signature`, placeOf(row));
  }

  /** Announces a change of a node's state, and reloads the page. */
  #onState(node, state, words, reason) {
    if (!this.#states.change(node, state, reason)) return;
    announce(words, true);
    this.#messages.push(`— ${visible(words)} —`);
    this.#reload();
  }

  #onBeat({ watermark, complete, nodes }) {
    if (watermark)
      this.#setLabel(`Live, complete up to ${moment(watermark)}${complete ? "" : ", except missing nodes"}`);
    // The tail reports no change of a node that was missing only from the page's answer, so detect its return here.
    for (const node of this.#states.findReturned(nodes)) this.#onState(node, "ok", `${node} is back`);
  }

  #onEnded(words) {
    this.#tail = null;
    this.#setLabel("Live");
    if (!words) return;
    notice(`Live mode ended: ${words}`, true);
    this.#ended();
  }

  #setLabel(words) {
    this.button.setAttribute("aria-pressed", String(Boolean(this.#tail)));
    this.button.textContent = words;
  }
}

/**
 * Returns the positions that the tail starts from: after the head of every node at the time of the answer, so that no
 * row is left out and none is repeated.
 */
export const positionsAfter = (nodes) =>
  nodes
    .filter((node) => node.generation && node.status !== "excluded")
    .map((node) => `${node.node_id}:${node.generation}:${node.head_seq === null ? 0 : node.head_seq + 1}`)
    .join(",");
