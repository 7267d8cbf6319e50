// Finds the entries of different nodes that are closer together than their clocks may differ: their order is uncertain.

import { digits } from "../lib/dom.js";
import { micros } from "../lib/time.js";
import { keyOf, nodeOf, timeOf } from "./row.js";

/** Maximum number of following rows that each row is compared with: a millisecond may contain thousands. */
const NEIGHBOURS_MAX = 50;

/**
 * Returns the pairs of rows of different nodes whose order is uncertain. Until the clocks have been compared
 * (`uncertaintyMs` is null), their differences are unknown, so the order of adjacent rows is uncertain.
 * @param {any[]} rows
 * @param {number | null} uncertaintyMs
 * @returns {[any, any][]}
 */
export function uncertainPairs(rows, uncertaintyMs) {
  /** @type {[any, any][]} */
  const found = [];
  for (let index = 0; index < rows.length; index += 1) {
    for (let other = index + 1; other < rows.length && other <= index + NEIGHBOURS_MAX; other += 1) {
      const [a, b] = [rows[index], rows[other]];
      if (!timeOf(a) || !timeOf(b)) continue;
      const isFarApart =
        uncertaintyMs === null
          ? other > index + 1
          : Math.abs(micros(timeOf(a)) - micros(timeOf(b))) > uncertaintyMs * 1000;
      if (isFarApart) break;
      if (nodeOf(a) !== nodeOf(b)) found.push([a, b]);
    }
  }
  return found;
}

/**
 * Returns the keys of the rows whose order is uncertain, each with a message.
 * @param {any[]} rows
 * @param {number | null} uncertaintyMs
 * @returns {Map<string, string>}
 */
export function uncertainRows(rows, uncertaintyMs) {
  const why =
    uncertaintyMs === null
      ? "the clocks have not been compared yet"
      : `clocks may differ by up to ${digits(uncertaintyMs)} ms`;
  const message = (neighbour) =>
    `The order relative to the adjacent entry of ${nodeOf(neighbour)} is uncertain: ${why}`;
  const found = new Map();
  for (const [a, b] of uncertainPairs(rows, uncertaintyMs)) {
    found.set(keyOf(a), message(b));
    found.set(keyOf(b), message(a));
  }
  return found;
}
