// States of the nodes of an answer (missing, pruned, broken, …), and messages about them.

import { digits, h, visible } from "../lib/dom.js";
import { ago, moment } from "../lib/time.js";

const MISSING = {
  unreachable: "is unreachable",
  timeout: "timed out",
  incomplete: "answered only in part",
  error: "returned an error",
};
const BROKEN = ["row_invalid", "fork", "rollback", "unknown_key", "pruned_early"];

export const isMissing = (node) => Object.hasOwn(MISSING, node.status);
export const isPruned = (node) => node.status === "pruned";
/** The node has left the cluster, and its entries of the range cannot be read. */
export const isRetired = (node) => node.status === "retired";
/** Whether an answer is complete, apart from entries that were pruned under the retention policy. */
export const isComplete = (envelope) => envelope.complete || Boolean(envelope.complete_since);
/** The node did not answer, and its entries of the range were read from the archive. */
export const isArchived = (node) => node.status === "archived";
export const isSuperseded = (node) => node.status === "superseded";
export const isBroken = (node) => node.status === "invalid" || BROKEN.includes(node.verdict);
export const verdictOf = (node) => (BROKEN.includes(node.verdict) ? node.verdict : "row_invalid");

export function verdictWords(node) {
  return {
    row_invalid: "its answer failed verification: a signature, a position, or a gap.",
    fork: "its log contradicts a witnessed checkpoint.",
    rollback: "its log lacks entries that a witness has seen.",
    unknown_key: "its entries are signed with an unknown key.",
    pruned_early: "it pruned entries earlier than the cluster's policy allows.",
  }[verdictOf(node)];
}

/** Describes one missing node: its state, when it was last seen, the reason, and how much of its log was witnessed. */
export function missingWords(node) {
  const since = node.last_seen
    ? `, last seen ${moment(node.last_seen)} (${ago(node.last_seen)})`
    : ", not seen since this aggregator started";
  const seen = node.witnessed
    ? ` A witness has seen ${digits(node.witnessed)} entries of its log, at ` +
      `${moment(node.witnessed_at)}; these cannot be changed undetected.`
    : "";
  return [
    h("b", {}, node.node_id),
    ` ${MISSING[node.status]}${since}: ${visible(node.reason ?? "no reason given")}.${seen}`,
  ];
}

/** Returns the completeness statement as text, for a ticket or a printout. */
export function statement(envelope) {
  const since = envelope.complete_since ? `Complete since ${moment(envelope.complete_since)}` : "NOT COMPLETE";
  const proven = envelope.completeness ? ` ${visible(envelope.completeness)}.` : "";
  const asOf = envelope.as_of ? ` as of ${moment(envelope.as_of)}` : "";
  const head = envelope.complete ? `Complete${asOf}` : since;
  const lines = [`${head}: ${envelope.answered} of ${envelope.expected} nodes answered.${proven}`];
  if (envelope.more)
    lines.push(
      `Excerpt: the ${envelope.order === "desc" ? "newest" : "oldest"} ` +
        `${digits(envelope.count)} entries; there are more.`,
    );
  if (envelope.from) lines.push(`Range: ${moment(envelope.from)} to ${moment(envelope.to)}.`);
  if (envelope.limited_to) lines.push(`Limited to: ${visible(envelope.limited_to)}`);
  for (const archive of envelope.archives ?? []) {
    const state = archive.reason ? `not read in full: ${visible(archive.reason)}` : `step ${archive.step}`;
    lines.push(`From ${visible(archive.archive)}: ${digits(archive.rows)} entries (${state}).`);
  }
  for (const node of envelope.nodes) {
    const why = visible(node.reason ?? "");
    if (isMissing(node))
      lines.push(
        `Missing: ${node.node_id} (${node.status}: ${why}), last seen ` +
          `${moment(node.last_seen)}, ${node.witnessed ?? 0} entries witnessed.`,
      );
    if (isPruned(node)) lines.push(`Pruned: ${node.node_id}: ${why}`);
    if (isRetired(node)) lines.push(`Retired: ${node.node_id}: ${why}`);
    if (isArchived(node)) lines.push(`From the archive: ${node.node_id}: ${why}`);
    if (isSuperseded(node)) lines.push(`Superseded: ${node.node_id}: ${why}`);
    if (isBroken(node)) lines.push(`Violation: ${node.node_id} (${verdictOf(node)}): ${why}`);
  }
  return lines.join("\n");
}
