// Modal dialogs, built on the native `<dialog>` element, which traps the focus and restores it.

import { freshId, h } from "../lib/dom.js";

/**
 * Opens a dialog. `buttons` are `{label, primary, run}`; the dialog stays open if `run` returns false. Esc closes it.
 */
export function dialog(title, content, buttons, { closed = () => {}, wide = false } = {}) {
  const heading = freshId("dialog");
  const box = h("dialog", { "aria-labelledby": heading, class: wide ? "wide" : null });
  const back = /** @type {HTMLElement | null} */ (document.activeElement);
  const close = () => box.close();
  const row = buttons.map(({ label, primary, run, kind }) =>
    h(
      "button",
      {
        type: "button",
        class: kind ?? (primary ? "primary" : null),
        onclick: async () => {
          if ((await run?.()) !== false) close();
        },
      },
      label,
    ),
  );
  box.append(h("h2", { id: heading }, title), ...content, h("div", { class: "button-group" }, row));
  box.addEventListener("close", () => {
    box.remove();
    back?.focus?.();
    closed();
  });
  document.body.append(box);
  box.showModal();
  /** @type {HTMLElement | null} */ (
    box.querySelector("[autofocus]") ?? row.find((button) => button.classList.contains("primary")) ?? row[0]
  )?.focus();
  return { box, close };
}

/** Asks for a reason, which is recorded in the log. Resolves to null if the user cancels. */
export function askReason(title, words, label) {
  return new Promise((resolve) => {
    const id = freshId("reason");
    const field = h("textarea", { id, rows: 3, maxlength: 1000, required: true, autofocus: true });
    let said = null;
    dialog(
      title,
      [...words, h("label", { for: id }, "Reason (recorded)"), field],
      [
        {
          label,
          primary: true,
          run: () => {
            if (!field.value.trim()) {
              field.focus();
              return false;
            }
            said = field.value.trim();
            return true;
          },
        },
        { label: "Cancel" },
      ],
      { closed: () => resolve(said) },
    );
  });
}
