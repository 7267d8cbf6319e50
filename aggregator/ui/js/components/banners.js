// Banners about missing nodes and violations. They cannot be dismissed. Acknowledging a violation records an entry of
// its own.

import { get, parameters, send } from "../lib/api.js";
import { askReason } from "./dialog.js";
import { announce, copy, h, notice, put, textOr, visible } from "../lib/dom.js";
import {
  isArchived,
  isBroken,
  isMissing,
  isPruned,
  isRetired,
  isSuperseded,
  missingWords,
  statement,
  verdictOf,
  verdictWords,
} from "./node-words.js";
import { quote } from "../lib/filter.js";
import { may } from "./session.js";
import { address } from "../lib/state.js";
import { moment } from "../lib/time.js";

/** Time range in which acknowledgements are searched for. */
const ACKNOWLEDGED_FROM = "90d";

/** Creates the banner area. `retry` repeats the request. */
export function banners({ retry }) {
  const element = h("div", { class: "banners" });
  let said = "";
  let shown = 0;

  /** Renders at once, and again when acknowledgements are loaded. `order` is the order of the answer's rows. */
  async function show(envelope, order = "desc", { unattended = false } = {}) {
    shown += 1;
    const mine = shown;
    const missing = envelope.nodes.filter(isMissing);
    const pruned = envelope.nodes.filter(isPruned);
    const retired = envelope.nodes.filter(isRetired);
    const archived = envelope.nodes.filter(isArchived);
    const superseded = envelope.nodes.filter(isSuperseded);
    const broken = envelope.nodes.filter(isBroken);
    const draw = (seen) =>
      put(
        element,
        missing.length > 0 && missingBanner(envelope, missing, order, retry),
        pruned.length > 0 && prunedBanner(pruned, envelope),
        retired.length > 0 && retiredBanner(retired),
        archived.length > 0 && archivedBanner(archived, envelope),
        superseded.length > 0 && supersededBanner(superseded),
        broken.map((node) => brokenBanner(node, seen, () => show(envelope, order))),
      );
    draw([]);
    const now = [
      ...missing.map((node) => `${node.node_id} is missing`),
      ...archived.map((node) => `${node.node_id} does not answer; its entries are from the archive`),
      ...superseded.map((node) => `entries of ${node.node_id} are no longer in its log`),
      ...broken.map((node) => `${node.node_id}: ${verdictOf(node)}`),
    ].join("; ");
    if (now !== said) announce(now || "all nodes answered, no violations", now !== "");
    said = now;
    if (broken.length === 0) return;
    const seen = await acknowledgements(unattended);
    // A newer answer may have arrived meanwhile; it must not be overwritten.
    if (mine === shown) draw(seen);
  }

  return { element, show };
}

function missingBanner(envelope, missing, order, retry) {
  const names = missing.map((node) => node.node_id).join(", ");
  return h(
    "div",
    { class: "banner warning missing", role: "region", "aria-label": "Missing nodes" },
    h(
      "p",
      {},
      h("span", { class: "icon" }, "⚠ "),
      h("b", {}, `${missing.length} of ${envelope.expected} nodes missing. `),
      finalWords(envelope, order, names),
    ),
    missing.map((node) => h("p", {}, missingWords(node))),
    h(
      "div",
      { class: "button-group" },
      h("button", { type: "button", onclick: retry }, `Retry ${names}`),
      h("button", { type: "button", onclick: () => copy(statement(envelope), "Statement") }, "Copy statement"),
    ),
  );
}

/**
 * States up to which time nothing is missing. Completeness is known in the order of the rows: newest first or oldest
 * first.
 */
function finalWords(envelope, order, names) {
  const through = envelope.complete_through;
  if (!through || through.startsWith("0001") || through.startsWith("9999"))
    return `Entries of ${names} may be missing throughout this range.`;
  return order === "desc"
    ? `Nothing newer than ${moment(through)} is missing; older entries of ${names} may be.`
    : `Complete up to ${moment(through)}; newer entries of ${names} may be missing.`;
}

function prunedBanner(pruned, envelope) {
  const since = envelope.complete_since;
  return h(
    "div",
    { class: `banner ${since ? "neutral" : "warning"} pruned`, role: "region", "aria-label": "Pruned entries" },
    since &&
      h(
        "p",
        {},
        h("b", {}, `Complete since ${moment(since)}. `),
        "Older entries were pruned after the retention period that the cluster's policy requires.",
      ),
    pruned.map((node) =>
      h(
        "p",
        {},
        h("span", { class: "icon" }, "▱ "),
        h("b", {}, node.node_id),
        " has pruned part of this range: ",
        visible(node.reason ?? ""),
      ),
    ),
  );
}

function retiredBanner(retired) {
  return h(
    "div",
    { class: "banner warning retired", role: "region", "aria-label": "Retired nodes" },
    retired.map((node) => h("p", {}, h("b", {}, node.node_id), " has left the cluster: ", visible(node.reason ?? ""))),
  );
}

function archivedBanner(archived, envelope) {
  return h(
    "div",
    { class: "banner neutral archived", role: "region", "aria-label": "Entries from the archive" },
    h(
      "p",
      {},
      envelope.complete && h("b", {}, `Complete as of ${moment(envelope.as_of ?? "")}. `),
      "Entries of nodes that do not answer are from the archive; what they recorded later is not known.",
    ),
    archived.map((node) => h("p", {}, h("b", {}, node.node_id), ": ", visible(node.reason ?? ""))),
  );
}

function supersededBanner(superseded) {
  return h(
    "div",
    { class: "banner warning superseded", role: "region", "aria-label": "Entries of an archived log" },
    superseded.map((node) =>
      h(
        "p",
        {},
        h("span", { class: "icon" }, "⚠ "),
        h("b", {}, node.node_id),
        " has replaced the log that contained entries of this range: ",
        visible(node.reason ?? ""),
      ),
    ),
  );
}

function brokenBanner(node, seen, again) {
  const about = seen.filter((one) => one.details.node === node.node_id && one.details.verdict === verdictOf(node));
  const exact = about.find((one) => one.details.finding === findingOf(node));
  const known = exact ?? about[0];
  const same = Boolean(exact);
  const rows = address({ filter: `node:${quote(node.node_id)}`, from: "7d", to: "", order: "desc" });
  return h(
    "div",
    { class: "banner danger violation", role: "region", "aria-label": `Violation on ${node.node_id}` },
    h(
      "p",
      {},
      h("span", { class: "icon" }, "✖ "),
      h("b", {}, `${node.node_id}: ${verdictWords(node)} `),
      visible(node.reason ?? ""),
    ),
    known &&
      h(
        "p",
        { class: "acknowledged" },
        `${same ? "Acknowledged" : otherFinding(known, node)} by ${visible(known.user)} at ${moment(known.time)} ` +
          `(recorded on ${visible(known.recordedOn)}): ${visible(known.details.words)}`,
      ),
    h(
      "div",
      { class: "button-group" },
      may("audit.verify") &&
        h(
          "button",
          { type: "button", onclick: () => acknowledge(node, again) },
          same ? "Acknowledge again" : "Acknowledge",
        ),
      h("a", { class: "button", href: rows }, "View entries"),
      h("a", { class: "button", href: "/nodes" }, "All nodes"),
    ),
  );
}

/**
 * Returns the finding without the number of rows on the page. An acknowledgement applies to this finding only, not to
 * later ones.
 */
const findingOf = (node) =>
  (node.reason ?? verdictOf(node)).replace(/\b\d[\d,]* of \d[\d,]* rows/g, "rows").slice(0, 500);

async function acknowledge(node, again) {
  const reason = await askReason(
    `Acknowledge: ${node.node_id}`,
    [
      h("p", {}, `${node.node_id}: ${verdictWords(node)} ${visible(node.reason ?? "")}`),
      h("p", {}, "This is recorded under your name. It repairs nothing, and the finding remains visible."),
    ],
    "Acknowledge",
  );
  if (reason === null) return;
  try {
    await send("POST", "/acknowledgements", {
      node: node.node_id,
      verdict: verdictOf(node),
      finding: findingOf(node),
      reason,
    });
    await again();
  } catch (error) {
    notice(`Cannot acknowledge: ${error.message}`, true);
  }
}

/**
 * Loads acknowledgements, newest first. Those recorded on the node that they refer to do not count. Fields are checked,
 * because an entry can contain anything.
 */
async function acknowledgements(unattended) {
  try {
    const asked = parameters({
      filter: "action:audit.acknowledge outcome:success",
      from: ACKNOWLEDGED_FROM,
      limit: 100,
    });
    const answer = await get(`/audit-log?${asked}`, undefined, { unattended });
    const sound = answer.entries.filter(
      (row) =>
        row.integrity === "ok" && row.entry && typeof row.entry.details === "object" && row.entry.details !== null,
    );
    return sound
      .map(({ entry }) => ({
        user: textOr(entry.user, "?"),
        time: textOr(entry.timestamp),
        recordedOn: entry.node_id,
        details: entry.details,
      }))
      .filter((one) => textOr(one.details.words) && textOr(one.details.node) && one.recordedOn !== one.details.node);
  } catch {
    return [];
  }
}

const otherFinding = (known, node) =>
  `A different finding was acknowledged (${visible(textOr(known.details.finding, verdictOf(node)))})`;
