// Verifies a bundle, or all entries of all nodes.

import { stream } from "../lib/api.js";
import { announce, digits, freshId, h, put, visible } from "../lib/dom.js";
import { isComplete } from "../components/node-words.js";
import { badge, placeOf } from "../components/row.js";
import { may } from "../components/session.js";
import { start } from "../components/shell.js";

/** The server's upload limit. */
const UPLOAD_BYTES_MAX = 256 * 1024 * 1024;
const VERDICTS = {
  verified: ["success", "✓", "VERIFIED"],
  incomplete: ["warning", "!", "INCOMPLETE"],
  unchecked: ["warning", "?", "UNCHECKED"],
  not_checked: ["warning", "?", "NOT CHECKED"],
  refused: ["danger", "✖", "REFUSED"],
};

start(async (main, me) => {
  main.append(h("h1", {}, "Verify"));
  if (!may("audit.verify"))
    return main.append(
      h(
        "p",
        { class: "callout" },
        "Your role does not allow this; auditors and admins can verify. Anyone can " +
          "verify a bundle without this server: piperoll verify-bundle FILE --trust FILE.",
      ),
    );
  main.append(
    bundleCard(),
    me.limited_to
      ? h("p", { class: "callout" }, "Verifying all entries of all nodes requires a user without a scope.")
      : everythingCard(),
  );
  return undefined;
});

function bundleCard() {
  const result = h("div", { class: "verdict", role: "status" });
  const input = h("input", {
    type: "file",
    id: freshId("bundle"),
    accept: ".tar,application/x-tar",
    onchange: () => input.files[0] && check(input.files[0]),
  });
  const drop = h(
    "div",
    {
      class: "dropzone",
      ondragover: (event) => {
        event.preventDefault();
        drop.classList.add("dragover");
      },
      ondragleave: () => drop.classList.remove("dragover"),
      ondrop: (event) => {
        event.preventDefault();
        drop.classList.remove("dragover");
        if (event.dataTransfer.files[0]) check(event.dataTransfer.files[0]);
      },
    },
    h("label", { for: input.id }, "Drop an evidence bundle here, or choose a file: "),
    input,
  );

  async function check(file) {
    if (file.size > UPLOAD_BYTES_MAX)
      return put(
        result,
        h(
          "p",
          { class: "error" },
          `${file.name} has ${digits(file.size)} bytes, more than the maximum of ` +
            `${digits(UPLOAD_BYTES_MAX)} on this page. Use piperoll verify-bundle instead.`,
        ),
      );
    put(result, h("p", {}, `Verifying ${visible(file.name)}…`));
    try {
      const answer = await (await stream("POST", "/bundles/verify", file)).json();
      const [kind, icon, words] = VERDICTS[answer.outcome] ?? ["warning", "?", answer.outcome];
      put(
        result,
        h("p", {}, badge(kind, icon, words), " ", h("b", {}, visible(file.name))),
        h("pre", {}, answer.message.split("\n").map(visible).join("\n")),
        h("p", { class: "hint" }, `SHA-256 ${answer.sha256}`),
      );
      announce(`${file.name}: ${words}`, kind === "danger");
    } catch (error) {
      put(result, h("p", { class: "error" }, `Cannot verify ${visible(file.name)}: ${visible(error.message)}`));
    }
    input.value = "";
    return undefined;
  }

  return h(
    "section",
    { class: "card" },
    h("h2", {}, "Evidence bundle"),
    h(
      "p",
      {},
      "A bundle is verified on this server, by the same code as the offline " +
        "verifier, with this aggregator's keys. To verify it independently, run ",
      h("code", {}, "piperoll verify-bundle FILE --trust FILE"),
      " with the trust file from your administrators; this works offline.",
    ),
    drop,
    result,
  );
}

function everythingCard() {
  const result = h("div", { role: "status" });
  const from = h("input", { type: "text", id: freshId("from"), placeholder: "all time" });
  const button = h("button", { type: "button", class: "primary", onclick: run }, "Verify all entries");
  let stopper = null;

  async function run() {
    if (stopper) return stopper.abort();
    stopper = new AbortController();
    button.textContent = "Stop";
    const found = { broken: [], count: 0, erased: 0, final: null };
    try {
      const body = from.value.trim() ? { from: from.value.trim() } : {};
      for await (const line of lines(await stream("POST", "/verify", body, stopper.signal))) {
        if (line.progress !== undefined) put(result, h("p", {}, `${digits(line.progress)} entries verified…`));
        else if (line.final) found.final = line.final;
        else if (line.integrity === "erased") found.erased += 1;
        else {
          found.count += 1;
          if (found.broken.length < SHOWN) found.broken.push(line);
        }
      }
      put(
        result,
        found.final
          ? conclusion(found)
          : h("p", { class: "error" }, "Verification was interrupted; no result. Try again."),
      );
    } catch (error) {
      put(
        result,
        h("p", { class: "error" }, error.name === "AbortError" ? "Cancelled; no result." : visible(error.message)),
      );
    }
    stopper = null;
    button.textContent = "Verify all entries";
    return undefined;
  }

  return h(
    "section",
    { class: "card" },
    h("h2", {}, "All entries of all nodes"),
    h(
      "p",
      {},
      "Reads every entry of every node, verifies its signature, and compares the log with the witnessed checkpoints.",
    ),
    h("div", { class: "form-row" }, h("div", { class: "field" }, h("label", { for: from.id }, "From"), from), button),
    result,
  );
}

const SHOWN = 100;

function conclusion({ final, broken, count, erased }) {
  const sound = count === 0 && final.nodes.every((node) => node.invalid === 0 && !["invalid"].includes(node.status));
  const [kind, icon, words] = !sound
    ? ["danger", "✖", "VIOLATIONS FOUND"]
    : isComplete(final)
      ? ["success", "✓", "all entries verified"]
      : ["warning", "!", "verified, but nodes are missing"];
  announce(words, !sound);
  const line = (node) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, node.node_id),
      h("td", {}, node.status),
      h("td", {}, node.verdict),
      h("td", { class: "numeric" }, digits(node.verified)),
      h("td", { class: "numeric" }, digits(node.invalid)),
      h("td", {}, visible(node.reason ?? "")),
    );
  return [
    h("p", {}, badge(kind, icon, words), ` ${final.completeness}`),
    h(
      "div",
      { class: "table-container" },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ["Node", "Status", "Verdict", "Verified", "Invalid", "Why"].map((name) => h("th", { scope: "col" }, name)),
          ),
        ),
        h("tbody", {}, final.nodes.map(line)),
      ),
    ),
    erased > 0 && h("p", {}, `${digits(erased)} entries were erased deliberately, as recorded by other entries.`),
    count > 0 &&
      h("pre", {}, broken.map((row) => `${visible(placeOf(row))}: ${visible(row.reason ?? row.integrity)}`).join("\n")),
    count > broken.length && h("p", {}, `and ${digits(count - broken.length)} more`),
  ];
}

/** Yields the parsed lines of an NDJSON response as they arrive. */
async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    rest += value;
    const whole = rest.split("\n");
    rest = whole.pop();
    for (const line of whole) if (line.trim()) yield JSON.parse(line);
  }
  if (rest.trim()) yield JSON.parse(rest);
}
