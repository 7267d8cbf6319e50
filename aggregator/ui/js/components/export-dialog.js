// The export dialog: preview, format, handling of missing nodes, progress and result.

import { Problem, getCounts, parameters, stream } from "../lib/api.js";
import { dialog } from "./dialog.js";
import { announce, digits, freshId, h, put, save, visible } from "../lib/dom.js";
import { isComplete, isMissing } from "./node-words.js";
import { moment } from "../lib/time.js";
import { rangeWords } from "../lib/state.js";

const FORMATS = [
  [
    "bundle",
    "Evidence bundle",
    "an archive with proofs that anyone can verify offline; it does " +
      "not contain the last few seconds, which no witness has seen yet",
  ],
  ["csv", "CSV", "a table for spreadsheets; formulas in cells are neutralised"],
  ["ndjson", "NDJSON", "for programs; ends with a final record"],
];
const INCOMPLETE = [
  ["refuse", "Refuse", "no file unless every node answers"],
  ["wait", "Wait up to a minute", "then refuse"],
  ["partial", "Continue without them", "the file is marked PARTIAL and names them"],
];
/** Maximum size of a file whose digest is computed: the file has to be in memory twice. */
const DIGEST_BYTES_MAX = 256 * 1024 * 1024;

/** Opens the dialog for the entries that a view selects. `done()` is called after each finished export. */
export function exportDialog(state, { done = () => {} } = {}) {
  new ExportDialog(state, done).open();
}

/** The dialog. It stays open after an export, so that the same view can be exported in another format. */
class ExportDialog {
  #state;
  #done;
  #preview = h("div", {}, h("p", { class: "hint" }, "Counting…"));
  #format = choices("Format", "format", FORMATS);
  #incomplete = choices("When nodes are missing", "incomplete", INCOMPLETE);
  #reason = h("textarea", { id: freshId("reason"), rows: 2, maxlength: 1000, required: true, autofocus: true });
  #status = h("p", { role: "status" });
  #progress = h("progress", { hidden: true, "aria-label": "Progress" });
  /** Cancels the running export; null if there is none. */
  #running = null;
  /** Number of entries according to the preview; null if it is not known. */
  #total = null;

  constructor(state, done) {
    this.#state = state;
    this.#done = done;
  }

  open() {
    const label = h("label", { for: this.#reason.id }, "Reason (recorded)");
    const options = [this.#format.element, this.#incomplete.element];
    dialog(
      "Export",
      [this.#preview, ...options, label, this.#reason, this.#progress, this.#status],
      [{ label: "Export", primary: true, run: () => this.#run() }, { label: "Close" }],
      { wide: true, closed: () => this.#running?.abort() },
    );
    this.#loadPreview();
  }

  async #loadPreview() {
    try {
      const answer = await count(this.#state);
      this.#total = answer.stats.entries;
      put(this.#preview, leaving(this.#state, answer));
    } catch (error) {
      put(this.#preview, h("p", { class: "error" }, `Cannot estimate the export: ${error.message}`));
    }
  }

  /** Exports once; returns false, which keeps the dialog open. */
  async #run() {
    if (!this.#reason.value.trim()) {
      this.#fail("State a reason; it is recorded and included in the bundle.");
      this.#reason.focus();
      return false;
    }
    if (this.#running) return false;
    this.#running = new AbortController();
    this.#progress.hidden = false;
    this.#progress.removeAttribute("value");
    put(this.#status, "Querying the nodes…");
    try {
      this.#finish(await this.#export(this.#running.signal));
    } catch (error) {
      this.#fail(error.name === "AbortError" ? "Cancelled; no file was written." : failure(error));
    } finally {
      this.#running = null;
      this.#progress.hidden = true;
    }
    return false;
  }

  /** Requests the file, and reads it as it arrives. */
  async #export(signal) {
    const order = {
      reason: this.#reason.value.trim(),
      format: this.#format.value(),
      filter: this.#state.filter,
      from: this.#state.from,
      incomplete: this.#incomplete.value(),
    };
    if (this.#state.to) order.to = this.#state.to;
    const answer = await stream("POST", "/exports", order, signal);
    return receive(answer, order.format, (rows, bytes) => {
      if (this.#total) this.#progress.value = Math.min(1, rows / this.#total);
      const size = `${digits(bytes)} bytes`;
      put(this.#status, order.format === "bundle" ? size : `${digits(rows)} entries, ${size}`);
    });
  }

  /** Saves the file, and shows its name, size and digest. */
  #finish(made) {
    const again = save(made.blob, made.name);
    put(
      this.#status,
      h("span", {}, `${made.partial ? "PARTIAL: " : ""}${made.name}, ${digits(made.blob.size)} bytes.`),
      made.digest && h("span", { class: "mono" }, ` SHA-256 ${made.digest}`),
      " ",
      again,
    );
    announce(`exported ${made.name}`);
    this.#done();
  }

  #fail(words) {
    put(this.#status, h("span", { class: "error" }, words));
  }
}

const count = (state) =>
  getCounts(`/stats?${parameters({ filter: state.filter, from: state.from, to: state.to, by: "node", top: 200 })}`);

/** Returns the preview of an export: number of entries, range, and missing nodes. */
function leaving(state, answer) {
  const missing = answer.nodes.filter(isMissing);
  const counts = answer.stats.by[0]?.top ?? [];
  return [
    h(
      "p",
      {},
      `${answer.complete ? "" : "At least "}${digits(answer.stats.entries)} ` +
        `entries will be exported${answer.verified ? "" : " (counted by the nodes)"}: `,
      h("code", {}, visible(state.filter) || "(no filter)"),
      `, ${rangeWords(state)} (${moment(answer.from)} to ${moment(answer.to)}). Times in files are UTC.`,
    ),
    answer.limited_to && h("p", { class: "callout" }, "Limited to ", h("code", {}, visible(answer.limited_to))),
    h("p", {}, counts.map(({ value, count: rows }) => `${value}: ${digits(rows)}`).join(", ") || "No entries."),
    missing.length > 0 && h("p", { class: "error" }, `Missing: ${missing.map((node) => node.node_id).join(", ")}.`),
  ];
}

function choices(legend, name, list) {
  const inputs = list.map(([value], index) =>
    h("input", { type: "radio", name, value, id: freshId(name), checked: index === 0 }),
  );
  const labels = list.map(([, heading, words], index) =>
    h(
      "label",
      { class: "option", for: inputs[index].id },
      inputs[index],
      h("span", {}, h("b", {}, heading), `: ${words}`),
    ),
  );
  return {
    element: h("fieldset", {}, h("legend", {}, legend), labels),
    value: () => inputs.find((input) => input.checked).value,
  };
}

/** Reads a file as it arrives. An interrupted stream yields no file. */
async function receive(answer, format, progress) {
  const name = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition") ?? "")?.[1] ?? `export.${format}`;
  const chunks = [];
  let [rows, bytes] = [0, 0];
  const reader = answer.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    bytes += value.length;
    for (const byte of value) rows += byte === 10 ? 1 : 0;
    progress(rows, bytes);
  }
  const blob = new Blob(chunks);
  const lost = format === "ndjson" ? await lostNodes(blob) : [];
  const partial = lost.length > 0 || name.includes("PARTIAL");
  const digest = blob.size <= DIGEST_BYTES_MAX ? await sha256(blob) : null;
  return {
    blob,
    partial,
    digest,
    name: partial && !name.includes("PARTIAL") ? name.replace(/(\.[a-z]+)$/, "_PARTIAL$1") : name,
  };
}

/** Returns the nodes that are incomplete according to the final record of an NDJSON file. */
async function lostNodes(blob) {
  const tail = await blob.slice(Math.max(0, blob.size - 1_048_576)).text();
  const last = tail.trimEnd().split("\n").at(-1);
  const final = JSON.parse(last || "{}").final;
  if (!final) throw new Problem(0, "broken_off", "the stream ended without its final record; no file was written");
  return isComplete(final) ? [] : final.nodes.filter((node) => !["ok", "excluded"].includes(node.status));
}

async function sha256(blob) {
  const hash = await crypto.subtle.digest("SHA-256", await blob.arrayBuffer());
  return [...new Uint8Array(hash)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function failure(error) {
  if (!error.envelope)
    return error.message === "network error" || error instanceof TypeError
      ? "The stream was interrupted; no file was written. Try again."
      : error.message;
  const missing = error.envelope.nodes.filter((node) => !["ok", "excluded"].includes(node.status));
  const names = missing.map((node) => `${node.node_id} (${visible(node.reason ?? node.status)})`).join("; ");
  return `No file was written: ${names}. Wait for these nodes, or continue without them.`;
}
