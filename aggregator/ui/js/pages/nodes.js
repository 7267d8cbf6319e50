// Current state of all nodes. A value that was not measured is shown as unknown, and a node that is silent as missing.

import { get, getCounts, parameters, send } from "../lib/api.js";
import { banners } from "../components/banners.js";
import { isBroken, isMissing, missingWords } from "../components/node-words.js";
import { askReason } from "../components/dialog.js";
import { announce, digits, h, notice, put, visible } from "../lib/dom.js";
import { badge } from "../components/row.js";
import { may } from "../components/session.js";
import { start } from "../components/shell.js";
import { address } from "../lib/state.js";
import { ago, moment } from "../lib/time.js";

const DAY_MS = 86_400_000;
const EXPIRY_SOON_DAYS = 21;
const DISK_LOW_BYTES = 1_000_000_000;

start(async (main, me) => {
  const warn = banners({ retry: load });
  const place = h("div", {}, h("p", { class: "hint" }, "Querying all nodes…"));
  const again = h("button", { type: "button", onclick: load }, "Refresh");
  main.append(h("h1", {}, "Nodes"), warn.element, place, h("div", { class: "button-group" }, again));
  document.addEventListener("zonechange", load);

  async function load() {
    const [nodes, hour, gaps] = await Promise.all([
      get("/nodes"),
      // A scope hides entries, so counts within it do not show how much a node records or has lost.
      me.limited_to ? null : getCounts(`/stats?${parameters({ from: "1h", by: "node", top: 1000 })}`).catch(() => null),
      me.limited_to
        ? null
        : getCounts(`/stats?${parameters({ from: "7d", by: "node", top: 1000, filter: "action:log.gap" })}`).catch(
            () => null,
          ),
    ]);
    put(
      place,
      h("p", {}, `${nodes.answered} of ${nodes.expected} nodes answered at ${moment(new Date().toISOString())}.`),
      table(nodes, hour, gaps, load),
    );
    await warn.show({ ...nodes, complete_through: null });
    announce(`${nodes.answered} of ${nodes.expected} nodes answered`);
  }
  await load();
});

function table({ nodes }, hour, gaps, again) {
  const heads = [
    "Node",
    "Status",
    "Verdict",
    "Entries",
    "Witnessed",
    "Clock",
    "Certificate",
    "Disk",
    "Retention",
    "Forwarding",
    "Entries, last hour",
    "Gaps, last 7 days",
  ];
  return h(
    "div",
    { class: "table-container" },
    h(
      "table",
      { class: "nodes" },
      h("caption", { class: "visually-hidden" }, "Nodes"),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          heads.map((name) => h("th", { scope: "col" }, name)),
        ),
      ),
      h(
        "tbody",
        {},
        nodes.map((node) => line(node, hour, gaps, again)),
      ),
    ),
  );
}

const unknown = () => badge("neutral", "?", "unknown");
const countOf = (answer, id) => answer?.stats.by[0]?.top.find((one) => one.value === id)?.count ?? 0;

function line(node, hour, gaps, again) {
  const answered = !isMissing(node) && node.status !== "excluded";
  const counted = (answer) =>
    answer && answered && answer.nodes.some((one) => one.node_id === node.node_id && one.status === "ok")
      ? digits(countOf(answer, node.node_id))
      : unknown();
  return h(
    "tr",
    { class: isBroken(node) ? "violation" : null },
    h(
      "th",
      { scope: "row" },
      h("a", { href: address({ filter: `node:${node.node_id}`, from: "7d", to: "", order: "desc" }) }, node.node_id),
      h("div", { class: "hint mono" }, visible(node.address)),
      node.version && h("div", { class: "hint" }, visible(node.version)),
    ),
    h("td", {}, reachable(node)),
    h("td", {}, verdict(node, again)),
    h(
      "td",
      { class: "numeric" },
      node.head_seq === null ? unknown() : digits(node.head_seq + 1),
      node.oldest_seq > 0 && h("div", { class: "hint" }, `log start: ${digits(node.oldest_seq)}`),
    ),
    h("td", {}, witnessed(node)),
    h("td", {}, clock(node)),
    h("td", {}, certificate(node)),
    h(
      "td",
      {},
      node.disk_free_bytes === null
        ? unknown()
        : [
            node.disk_free_bytes < DISK_LOW_BYTES
              ? badge("danger", "!", bytes(node.disk_free_bytes))
              : bytes(node.disk_free_bytes),
            " free",
            h("div", { class: "hint" }, `log ${bytes(node.database_bytes)}`),
          ],
    ),
    h("td", {}, retention(node)),
    h("td", {}, handedOn(node)),
    h("td", { class: "numeric" }, counted(hour)),
    h("td", { class: "numeric" }, counted(gaps)),
  );
}

function reachable(node) {
  if (node.roster_status === "retired") return badge("neutral", "–", "retired");
  if (!isMissing(node))
    return [
      badge("success", "●", "ok"),
      h(
        "div",
        { class: "hint" },
        `${node.took_ms ?? "?"} ms, last seen ${node.last_seen ? ago(node.last_seen) : "just now"}`,
      ),
    ];
  return [badge("danger", "✖", "MISSING"), h("div", {}, missingWords(node))];
}

function verdict(node, again) {
  const words = {
    ok: ["success", "✓", "ok"],
    unreachable: ["warning", "?", "unknown"],
    stale: ["warning", "?", "unknown (stale)"],
  }[node.verdict] ?? [isBroken(node) ? "danger" : "warning", isBroken(node) ? "✖" : "?", node.verdict];
  const presented = node.alarm?.presented;
  const accept = async () => {
    const reason = await askReason(
      node.verdict === "row_invalid"
        ? `Accept the finding about ${node.node_id}`
        : `Accept the new history of ${node.node_id}`,
      node.verdict === "row_invalid"
        ? [
            h("p", {}, visible(node.reason)),
            h(
              "p",
              {},
              "The entry is not changed, and queries that return it keep reporting it. Accepting is recorded " +
                "under your name, and clears the verdict until a query returns an invalid entry again.",
            ),
          ]
        : [
            h(
              "p",
              {},
              `${node.node_id} presents generation ${presented.generation} with ` +
                `${digits(presented.size)} entries. This log, or an extension of it, becomes the node's history.`,
            ),
            h(
              "p",
              {},
              "Witnessed entries that are not in this log remain on record: ranges that may contain " +
                "them are not complete from then on. Accepting is recorded under your name.",
            ),
          ],
      "Accept",
    );
    if (reason === null) return;
    await send("POST", `/nodes/${encodeURIComponent(node.node_id)}/accept`, { ...presented, reason }).catch((error) =>
      notice(error.message, true),
    );
    await again();
  };
  // A node that signs no checkpoint presents no log that could be accepted.
  const clearable =
    ["fork", "rollback", "first_seen_again", "row_invalid"].includes(node.verdict) && presented && may("nodes.accept");
  return [
    badge(...words),
    !isMissing(node) && node.reason && h("div", {}, visible(node.reason)),
    node.write_fault && h("div", { class: "error" }, `Cannot record: ${visible(node.write_fault)}`),
    clearable && h("button", { type: "button", onclick: accept }, "Accept…"),
  ];
}

function witnessed(node) {
  if (node.witnessed === null) return badge("warning", "○", "never");
  return [
    digits(node.witnessed),
    " entries",
    h("div", { class: "hint" }, node.witnessed_at ? ago(node.witnessed_at) : "time unknown"),
    node.unwitnessed > 0 && h("div", { class: "hint" }, `${digits(node.unwitnessed)} pending`),
  ];
}

function clock(node) {
  if (node.clock_offset_ms === null || isMissing(node)) return unknown();
  return [
    `${node.clock_offset_ms > 0 ? "+" : ""}${node.clock_offset_ms.toFixed(2)} ms`,
    h("div", { class: "hint" }, `± ${node.clock_uncertainty_ms.toFixed(2)} ms`),
  ];
}

function certificate(node) {
  if (!node.certificate_not_after) return unknown();
  const days = (new Date(node.certificate_not_after).getTime() - Date.now()) / DAY_MS;
  return [
    days < EXPIRY_SOON_DAYS ? badge(days < 0 ? "danger" : "warning", "!", days < 0 ? "EXPIRED" : "expires soon") : null,
    ` ${moment(node.certificate_not_after).slice(0, 10)}`,
    h("div", { class: "hint" }, ago(node.certificate_not_after)),
  ];
}

function retention(node) {
  const known = node.retention;
  if (isMissing(node) || !known) return unknown();
  return [
    known.keep_days ? `${digits(known.keep_days)} days` : "forever",
    known.size_max && h("div", { class: "hint" }, `at most ${bytes(known.size_max)}`),
    known.holds.length > 0 && badge("neutral", "▣", `holds: ${known.holds.length}`),
    known.problem && h("div", { class: "error" }, visible(known.problem)),
  ];
}

/** Shows the destinations that a node forwards to. */
function handedOn(node) {
  if (isMissing(node)) return unknown();
  if (node.forward.length === 0) return h("span", { class: "hint" }, "none");
  return node.forward.map((one) => {
    const state = one.paused
      ? badge("warning", "‖", "paused")
      : one.problem
        ? badge("danger", "✖", "failing")
        : one.lag_rows > 0
          ? badge("neutral", "…", "catching up")
          : badge("success", "✓", "up to date");
    const behind =
      one.lag_rows > 0 &&
      h(
        "div",
        { class: "hint" },
        `${digits(one.lag_rows)} entries behind${one.lag_seconds >= 1 ? `, ${Math.round(one.lag_seconds)} s` : ""}`,
      );
    const words = one.paused ?? one.problem;
    return h(
      "div",
      { title: one.to },
      visible(one.name),
      " ",
      state,
      behind,
      words && h("div", { class: one.problem ? "error" : "hint" }, visible(words)),
    );
  });
}

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let [value, unit] = [Number(count), 0];
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${value.toFixed(value < 10 && unit > 0 ? 1 : 0)} ${units[unit]}`;
}
