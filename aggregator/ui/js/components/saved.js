// Saved searches of the user, available in all of their browsers.

import { get, send } from "../lib/api.js";
import { dialog } from "./dialog.js";
import { freshId, h, put, visible } from "../lib/dom.js";
import { address, read } from "../lib/state.js";

/** Opens the list. `state` is the view that would be saved. */
export async function savedSearches(state) {
  const list = h("ul", { class: "saved-searches" });
  const said = h("p", { class: "error", role: "alert" });
  const name = h("input", { type: "text", id: freshId("name"), maxlength: 64 });

  async function draw() {
    const kept = await get("/searches");
    put(
      list,
      kept.length === 0 && h("li", { class: "hint" }, "No saved searches."),
      kept.map((search) =>
        h(
          "li",
          {},
          h("a", { href: address(read(`?${search.parameters}`)) }, visible(search.name)),
          " ",
          h("code", {}, visible(read(`?${search.parameters}`).filter)),
          " ",
          h(
            "button",
            {
              type: "button",
              "aria-label": `Delete ${visible(search.name)}`,
              onclick: () =>
                send("DELETE", `/searches/${encodeURIComponent(search.name)}`)
                  .then(draw)
                  .catch(fail),
            },
            "Delete",
          ),
        ),
      ),
    );
  }
  const fail = (error) => {
    said.textContent = error.message;
  };
  async function keep() {
    said.textContent = "";
    if (!name.value.trim()) return name.focus();
    const view = new URL(address({ ...state, cursor: "", row: "", live: false }), location.href);
    try {
      await send("POST", "/searches", { name: name.value.trim(), parameters: view.search.slice(1) });
      name.value = "";
      await draw();
    } catch (error) {
      fail(error);
    }
    return undefined;
  }

  dialog(
    "Saved searches",
    [
      list,
      h("label", { for: name.id }, "Save this search as"),
      name,
      h("div", { class: "button-group" }, h("button", { type: "button", onclick: keep }, "Save")),
      said,
    ],
    [{ label: "Close", primary: true }],
    { wide: true },
  );
  await draw().catch(fail);
}
