// Tracks the state of each node in live mode, so that a report that repeats a known state is ignored.

import { isBroken, isMissing } from "./node-words.js";

/** Minimum interval between reloads because of a node whose tail works but whose answers fail. */
const TRY_AGAIN_MS = 15_000;

/** State of a node. @typedef {"ok" | "missing" | "broken"} State */

/** Returns the state of a node according to an answer. @returns {State} */
const stateOf = (node) => (isMissing(node) ? "missing" : isBroken(node) ? "broken" : "ok");

/** Returns the state of a node according to an event of the tail. @returns {State} */
export const stateOfEvent = ({ status }) => (status === "ok" ? "ok" : status === "invalid" ? "broken" : "missing");

/** The last known state of each node. */
export class NodeStates {
  /** @type {Map<string, State>} */
  #known = new Map();
  /** States that were reported, each with its node and reason. */
  #reported = new Set();
  /** When `findReturned` last found each node. */
  #lastFound = new Map();

  /** Takes over the states of an answer. The tail's report about a node is newer, unless the answer is worse. */
  adopt(nodes) {
    const states = new Map(nodes.map((node) => [node.node_id, stateOf(node)]));
    for (const [node, was] of this.#known) if (states.get(node) === "ok" && was !== "ok") states.set(node, was);
    this.#known = states;
  }

  /**
   * Records the state of a node. Returns whether it is a change: another state, or a new reason of a broken node.
   * @param {string | undefined} node
   * @param {State} state
   */
  change(node, state, reason = "") {
    const report = `${node} ${state} ${reason}`;
    if (!node || (this.#known.get(node) === state && (state !== "broken" || this.#reported.has(report)))) return false;
    this.#known.set(node, state);
    this.#reported.add(report);
    return true;
  }

  /**
   * Returns the missing nodes whose tails work according to a heartbeat. A node whose answers still fail is missing
   * again after the reload, so each node is returned only once per interval.
   */
  findReturned(nodes) {
    const found = [];
    for (const { node_id: node, status } of nodes) {
      const isTooSoon = Date.now() - (this.#lastFound.get(node) ?? 0) < TRY_AGAIN_MS;
      if (status !== "ok" || this.#known.get(node) !== "missing" || isTooSoon) continue;
      this.#lastFound.set(node, Date.now());
      found.push(node);
    }
    return found;
  }
}
