// Application shell of all pages: header with navigation, user and time zone, help, and keyboard shortcuts.

import { h, put } from "../lib/dom.js";
import { dialog } from "./dialog.js";
import { signOut, signedIn } from "./session.js";
import { zone, zoneName } from "../lib/time.js";

const PAGES = [
  ["/", "Timeline"],
  ["/nodes", "Nodes"],
  ["/statistics", "Statistics"],
  ["/exports", "Exports"],
  ["/verify", "Verify"],
];

/** @type {Map<string, [string, (event?: KeyboardEvent) => void]>} */
const keys = new Map([
  ["g n", ["go to the nodes page", () => location.assign("/nodes")]],
  ["g t", ["go to the timeline", () => location.assign("/")]],
  ["t", ["switch between UTC and local time", toggleZone]],
  ["?", ["show this list", help]],
]);

/** Adds keyboard shortcuts of one page: `{"j": ["description", run]}`. */
export function onKeys(more) {
  for (const [key, entry] of Object.entries(more)) keys.set(key, entry);
}

/** Renders the header; returns the user and the element for the page's content. */
async function page() {
  const me = await signedIn();
  drawHead(me);
  const main = document.getElementById("content");
  put(main);
  if (me.limited_to) {
    main.append(h("p", { class: "callout scope" }, "Your scope: ", h("code", {}, me.limited_to)));
  }
  document.addEventListener("keydown", pressed);
  return { me, main };
}

function drawHead(me) {
  const here = location.pathname;
  const links = PAGES.map(([path, label]) =>
    h("li", {}, h("a", { href: path, "aria-current": path === here ? "page" : null }, label)),
  );
  put(
    document.getElementById("header"),
    h(
      "div",
      { class: "brand" },
      h("span", { class: "logo", "aria-hidden": "true" }),
      "Piperoll",
      h("span", { class: "cluster" }, me.cluster),
    ),
    h("nav", { "aria-label": "Pages" }, h("ul", {}, links)),
    h(
      "div",
      { class: "header-actions" },
      h(
        "button",
        { type: "button", id: "time-zone", title: "Show times in UTC or in local time (t)", onclick: toggleZone },
        `Times: ${zoneName()}`,
      ),
      h("button", { type: "button", title: "Shortcuts (?)", "aria-label": "Keyboard shortcuts", onclick: help }, "?"),
      h("span", { class: "user" }, `${me.role}: ${me.name}`),
      h("button", { type: "button", onclick: signOut }, "Sign out"),
    ),
  );
}

function toggleZone() {
  const name = zone.get() === "utc" ? "local" : "utc";
  zone.set(name);
  const address = new URL(location.href);
  if (name === "local") address.searchParams.set("zone", "local");
  else address.searchParams.delete("zone");
  history.replaceState(null, "", address);
  document.getElementById("time-zone").textContent = `Times: ${zoneName()}`;
  document.dispatchEvent(new Event("zonechange"));
}

function help() {
  const rows = [...keys].map(([key, [words]]) =>
    h(
      "tr",
      {},
      h(
        "th",
        { scope: "row" },
        key.split(" ").map((k) => h("kbd", {}, k)),
      ),
      h("td", {}, words),
    ),
  );
  const off = h("input", {
    type: "checkbox",
    id: "shortcuts-disabled",
    checked: localStorage.getItem(KEYS_OFF) === "1",
    onchange: () => localStorage.setItem(KEYS_OFF, off.checked ? "1" : "0"),
  });
  dialog(
    "Keyboard shortcuts",
    [
      h("table", { class: "shortcuts" }, h("tbody", {}, rows)),
      h("label", { class: "option", for: off.id }, off, "Disable single-key shortcuts (except Esc and Enter)"),
    ],
    [{ label: "Close", primary: true }],
  );
}

/** Setting that disables single-key shortcuts (WCAG 2.1.4). */
const KEYS_OFF = "piperoll.keysOff";
let before = "";
function pressed(event) {
  if (event.key.length === 1 && localStorage.getItem(KEYS_OFF) === "1") return;
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const pair = before ? `${before} ${event.key}` : event.key;
  before = event.key === "g" && !before ? "g" : "";
  const found = keys.get(pair) ?? (before ? null : keys.get(event.key));
  // On a button or a link, Enter activates it.
  if (!found || (event.key === "Enter" && event.target.closest("button, a, summary"))) return;
  event.preventDefault();
  found[1](event);
}

/** Runs the function that renders a page. If it fails, shows the error instead. */
export async function start(fill) {
  try {
    const { me, main } = await page();
    await fill(main, me);
  } catch (error) {
    put(
      document.getElementById("content"),
      h(
        "div",
        { class: "banner danger", role: "alert" },
        h("p", {}, `Cannot show this page: ${error.message}`),
        h("button", { type: "button", onclick: () => location.reload() }, "Try again"),
      ),
    );
    console.error(error);
  }
}
