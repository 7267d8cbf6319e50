// Banners about missing nodes and failed verification. They cannot be dismissed; a violation can be acknowledged, which
// is recorded as an entry of its own.

import { get, parameters, send } from "../lib/api.js";
import { askReason } from "./dialog.js";
import { announce, copy, h, notice, put, textOr, visible } from "../lib/dom.js";
import {
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

/** How far back acknowledgements are searched for. */
const ACKNOWLEDGED_FROM = "90d";

/** Creates the banner area. `retry` repeats the request. */
export function banners({ retry }) {
  const element = h("div", { class: "banners" });
  let said = "";
  let shown = 0;

  /** Draws at once, and adds acknowledgements when they are loaded. `order` is the order of the answer's rows. */
  async function show(envelope, order = "desc", { unattended = false } = {}) {
    shown += 1;
    const mine = shown;
    const missing = envelope.nodes.filter(isMissing);
    const pruned = envelope.nodes.filter(isPruned);
    const retired = envelope.nodes.filter(isRetired);
    const superseded = envelope.nodes.filter(isSuperseded);
    const broken = envelope.nodes.filter(isBroken);
    const draw = (seen) =>
      put(
        element,
        missing.length > 0 && missingBanner(envelope, missing, order, retry),
        pruned.length > 0 && prunedBanner(pruned, envelope),
        retired.length > 0 && retiredBanner(retired),
        superseded.length > 0 && supersededBanner(superseded),
        broken.map((node) => brokenBanner(node, seen, () => show(envelope, order))),
      );
    draw([]);
    const now = [
      ...missing.map((node) => `${node.node_id} is missing`),
      ...superseded.map((node) => `rows of ${node.node_id} are no longer in its log`),
      ...broken.map((node) => `${node.node_id}: ${verdictOf(node)}`),
    ].join("; ");
    if (now !== said) announce(now || "all nodes answered, no violations", now !== "");
    said = now;
    if (broken.length === 0) return;
    const seen = await acknowledgements(unattended);
    // Another answer may have arrived meanwhile; an older one must not overwrite it.
    if (mine === shown) draw(seen);
  }

  return { element, show };
}

function missingBanner(envelope, missing, order, retry) {
  const names = missing.map((node) => node.node_id).join(", ");
  return h(
    "div",
    { class: "banner warn missing", role: "region", "aria-label": "Missing nodes" },
    h(
      "p",
      {},
      h("span", { class: "sign" }, "⚠ "),
      h("b", {}, `${missing.length} of ${envelope.expected} nodes not included. `),
      finalWords(envelope, order, names),
    ),
    missing.map((node) => h("p", {}, missingWords(node))),
    h(
      "div",
      { class: "buttons" },
      h("button", { type: "button", onclick: retry }, `Ask ${names} again`),
      h("button", { type: "button", onclick: () => copy(statement(envelope), "Statement") }, "Copy as note"),
    ),
  );
}

/**
 * Says up to when the rows shown are final. Completeness is known in the order of the rows: newest first or oldest
 * first.
 */
function finalWords(envelope, order, names) {
  const through = envelope.complete_through;
  if (!through || through.startsWith("0001") || through.startsWith("9999"))
    return `Rows of ${names} of any time may be missing.`;
  return order === "desc"
    ? `Nothing newer than ${moment(through)} is missing; older rows of ${names} may be.`
    : `Complete up to ${moment(through)}; newer rows of ${names} may be missing.`;
}

function prunedBanner(pruned, envelope) {
  const since = envelope.complete_since;
  return h(
    "div",
    { class: `banner ${since ? "calm" : "warn"} pruned`, role: "region", "aria-label": "Pruned rows" },
    since &&
      h(
        "p",
        {},
        h("b", {}, `Complete from ${moment(since)} on. `),
        "Older rows were kept for as long as the cluster's policy requires.",
      ),
    pruned.map((node) =>
      h(
        "p",
        {},
        h("span", { class: "sign" }, "▱ "),
        h("b", {}, node.node_id),
        " no longer has a part of this range: ",
        visible(node.reason ?? ""),
      ),
    ),
  );
}

function retiredBanner(retired) {
  return h(
    "div",
    { class: "banner warn retired", role: "region", "aria-label": "Retired nodes" },
    retired.map((node) => h("p", {}, h("b", {}, node.node_id), " has left the cluster: ", visible(node.reason ?? ""))),
  );
}

function supersededBanner(superseded) {
  return h(
    "div",
    { class: "banner warn superseded", role: "region", "aria-label": "Rows of an earlier log" },
    superseded.map((node) =>
      h(
        "p",
        {},
        h("span", { class: "sign" }, "⚠ "),
        h("b", {}, node.node_id),
        " has replaced the log that contained rows of this range: ",
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
    { class: "banner bad broken", role: "region", "aria-label": `Violation on ${node.node_id}` },
    h(
      "p",
      {},
      h("span", { class: "sign" }, "✖ "),
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
      { class: "buttons" },
      may("audit.verify") &&
        h(
          "button",
          { type: "button", onclick: () => acknowledge(node, again) },
          same ? "Acknowledge again" : "Acknowledge",
        ),
      h("a", { class: "button", href: rows }, "Its rows"),
      h("a", { class: "button", href: "/nodes" }, "All nodes"),
    ),
  );
}

/**
 * Returns the finding without the number of rows on the page, so that acknowledging it is not taken for acknowledging
 * a later finding.
 */
const findingOf = (node) =>
  (node.reason ?? verdictOf(node)).replace(/\b\d[\d,]* of \d[\d,]* rows/g, "rows").slice(0, 500);

async function acknowledge(node, again) {
  const reason = await askReason(
    `Acknowledge: ${node.node_id}`,
    [
      h("p", {}, `${node.node_id}: ${verdictWords(node)} ${visible(node.reason ?? "")}`),
      h("p", {}, "This is recorded under your name. It repairs nothing, and the finding stays visible."),
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
 * Loads acknowledgements, newest first. An accused node's own entries about itself do not count, and an entry can
 * contain anything.
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
  `Another finding was acknowledged (${visible(textOr(known.details.finding, verdictOf(node)))})`;
