// Tab of the drawer that explains why an entry can be trusted, and how to verify it independently.

import { getText } from "../lib/api.js";
import { copy, digits, h, save, visible } from "../lib/dom.js";
import { addressOf, logOf, nodeOf, placeOf, seqOf } from "./row.js";
import { may } from "./session.js";
import { moment } from "../lib/time.js";

export function proofTab(row, { envelope }) {
  const node = envelope.nodes.find((known) => known.node_id === nodeOf(row));
  const place = placeOf(row);
  const [name, seq] = place.split("/");
  // A bundle contains only the current log; a row of an archived log has a proof of its own.
  const of = addressOf(row, envelope).split("@")[1];
  const log = of ? `@${of}` : "";
  const file = `${name}-${seq}`;
  const command =
    `piperoll export --bundle ${file}.tar --reason 'check of ${place}' 'node:${name} ` +
    `seq:${seq}' --from 0001-01-01\npiperoll verify-bundle ${file}.tar --trust trust.toml`;
  return [
    h(
      "ol",
      {},
      sentences(row, node, Boolean(row.live)).map((words) => h("li", {}, words)),
    ),
    node &&
      h(
        "p",
        {},
        `${node.node_id}: ${digits((node.head_seq ?? -1) + 1)} entries, ${digits(node.witnessed ?? 0)} witnessed` +
          `${node.witnessed_at ? `, last at ${moment(node.witnessed_at)}` : ""}. Verdict: ${node.verdict}.`,
      ),
    h("h3", {}, "Verify it yourself"),
    of
      ? h(
          "p",
          {},
          "This entry is in an archived log of its node. Bundles " +
            "contain only current logs; the proof below is for this entry alone.",
        )
      : h("p", {}, "Using piperoll, an auditor's token, and the trust file from your administrators:"),
    !of && h("pre", { tabindex: 0 }, command),
    h(
      "p",
      {},
      "For other tools that read C2SP proofs, ",
      h("code", {}, `piperoll export --row ${name}:${seq}${log}`),
      " writes the entry's bytes and its proof as two files.",
    ),
    h(
      "div",
      { class: "button-group" },
      !of && h("button", { type: "button", onclick: () => copy(command, "Command") }, "Copy command"),
      may("audit.export") &&
        h(
          "button",
          {
            type: "button",
            disabled: !row.witnessed,
            title: row.witnessed ? null : "No witness has seen this entry yet",
            onclick: (event) => proof(event.currentTarget, row),
          },
          "Download proof (c2sp.org/tlog-proof)",
        ),
    ),
    h("pre", { class: "proof", hidden: true, tabindex: 0 }),
    !of &&
      h(
        "p",
        { class: "hint" },
        "For auditors: an evidence bundle (Export) contains this entry and everything needed to verify it offline.",
      ),
  ];
}

function sentences(row, node, live) {
  const name = nodeOf(row);
  if (row.withheld) return ["The content of this entry is withheld, so there is nothing to verify."];
  if (row.integrity === "violation")
    return [
      `The signature is NOT valid: these are not the bytes that ${name} ` +
        `signed, or they are at a different position. ${visible(row.reason ?? "")}`,
      "Do not trust the content of this entry.",
    ];
  if (row.integrity === "unknown_key")
    return [`The signature cannot be verified: this aggregator does not have the key. ${visible(row.reason ?? "")}`];
  const seal =
    row.integrity === "erased"
      ? "The content was erased deliberately. Another entry records " +
        "by whom and why, and the hash of this entry is still in the tree."
      : `The signature is valid: exactly these bytes are entry ${digits(seqOf(row))} ` +
        `of ${name}. Only holders of ${name}'s MAC key can create this signature.`;
  const witness = row.witnessed
    ? "The entry is proven to be part of a checkpoint that a witness has " +
      "cosigned. Not even the node can change or remove it undetected."
    : "No witness had seen the entry when it was read, so it is protected only by its MAC. " +
      (live
        ? "It arrived in live mode; reload the page to see whether a witness has seen it since."
        : "A witness checks every few seconds.");
  const whole =
    !live && node?.proven
      ? `It is also proven that no entry of this range is missing from ${name}, ` +
        `up to the ${digits(node.witnessed ?? 0)} entries that a witness has seen.`
      : "This does not prove that no other entry " +
        `was left out${!live && node?.unproven ? `: ${visible(node.unproven)}` : ""}.`;
  return [seal, witness, whole];
}

async function proof(button, row) {
  const box = button.closest("[role=tabpanel]").querySelector("pre.proof");
  try {
    const text = await getText(`/audit-log/${encodeURIComponent(nodeOf(row))}/${seqOf(row)}/proof${logOf(row)}`);
    box.textContent = text;
    save(new Blob([text], { type: "text/plain" }), `${placeOf(row).replace("/", "-")}.tlog-proof`);
  } catch (error) {
    box.textContent = error.message;
  }
  box.hidden = false;
}
