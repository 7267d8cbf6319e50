// Buffers and counts the new entries of live mode until they may be shown.

import { announce, digits, h, notice, put } from "../lib/dom.js";

/** Distance from the top of the page within which new entries are shown at once. */
const NEAR_TOP_PIXELS = 60;
/** Maximum number of buffered entries; beyond it the oldest are dropped, and a message says so. */
const BUFFERED_MAX = 1_000;

/**
 * The buffer. `near()` returns whether new entries may be shown at once, `show(items)` adds them at the top and returns
 * how many older ones were removed.
 */
export class EntryBuffer {
  #near;
  #show;
  /** Buffered items: rows, and messages about a node. @type {{ row?: any, message?: string }[]} */
  #items = [];
  /** Number of items that were dropped since the last flush. */
  #dropped = 0;
  /** The scheduled rendering, or 0. */
  #frame = 0;
  #hasWarned = false;
  /** Element with a button that counts and shows the buffered entries. */
  counter = h("div", { class: "new-entries" });

  constructor({ near, show }) {
    this.#near = near;
    this.#show = show;
  }

  add(item) {
    this.#items.push(item);
    this.#dropped += Math.max(0, this.#items.length - BUFFERED_MAX);
    this.#items = this.#items.slice(-BUFFERED_MAX);
    // Render once for all entries that arrive together.
    if (!this.#frame) this.#frame = requestAnimationFrame(() => this.#draw());
  }

  /** Shows all buffered items. */
  flush() {
    const removed = this.#dropped + (this.#show(this.#items) ?? 0);
    if (removed > 0 && !this.#hasWarned)
      notice(`Only the newest ${digits(BUFFERED_MAX)} entries are kept on this page; reload it to see the others`);
    this.#hasWarned ||= removed > 0;
    this.clear();
  }

  /** Discards all buffered items. */
  clear() {
    this.#items = [];
    this.#dropped = 0;
    put(this.counter);
  }

  #draw() {
    this.#frame = 0;
    if (scrollY < NEAR_TOP_PIXELS && this.#near()) {
      this.flush();
      return;
    }
    const rows = this.#items.filter((item) => item.row).length;
    const count = rows + this.#dropped;
    const label = count === 1 ? "1 new entry (press .)" : `${digits(count)} new entries (press .)`;
    put(
      this.counter,
      this.#items.length > 0 && h("button", { type: "button", class: "primary", onclick: () => this.flush() }, label),
    );
    if (rows % 10 === 1) announce(`${digits(count)} new entries`);
  }
}
