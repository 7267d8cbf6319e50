// Signs in with a token, a one-time link (its code follows #, which browsers never send), or a client certificate.

import { get, send } from "../lib/api.js";
import { h, put } from "../lib/dom.js";

const asked = new URLSearchParams(location.search);
const main = document.getElementById("content");

/** Reasons for the redirect to this page; a URL can select a message but cannot supply one. */
const WHY = {
  session_expired: "You were signed out because your session was idle.",
  session_unknown: "You are no longer signed in.",
  token_unknown: "Your token was revoked.",
  token_expired: "Your token has expired; ask an administrator for a new one.",
};

/**
 * Returns the URL to open after signing in. It is always a page of this server: a path that begins with exactly one
 * slash. `//host` and `/\\host` would be another server, even if they only result from resolving `/./` or `/x/..`. The
 * complete resolved URL is opened, so its path is not parsed again.
 */
export function back(text = asked.get("back"), origin = location.origin) {
  const home = `${origin}/`;
  try {
    const wanted = new URL(text ?? "/", home);
    const ours =
      wanted.origin === origin && /^\/(?![/\\])/.test(wanted.pathname) && !wanted.username && !wanted.password;
    return ours ? home + wanted.pathname.slice(1) + wanted.search : home;
  } catch {
    return home;
  }
}

async function enter(what) {
  await send("POST", "/session", what);
  location.replace(back());
}

async function begin() {
  const code = location.hash.slice(1);
  if (code) {
    history.replaceState(null, "", location.pathname + location.search);
    // A user who is already signed in may have been sent another person's link: their actions would then be recorded
    // under that person's name.
    const present = await get("/session").catch(() => null);
    if (present?.session) return replaceSession(code, present);
    try {
      return await enter({ link: code });
    } catch (error) {
      return form(error.message);
    }
  }
  // The first response makes the browser delete the cookie of an expired session; the second request may then succeed
  // with a certificate.
  const known = await get("/session")
    .catch(() => get("/session"))
    .catch(() => null);
  if (known?.session) return location.replace(back());
  return form(WHY[asked.get("why")], known);
}

/** Asks before a link replaces a session. */
function replaceSession(code, present) {
  const said = h("p", { id: "sign-in-error", class: "error", role: "alert" });
  const replace = async () => {
    said.textContent = "";
    try {
      await send("DELETE", "/session");
      await enter({ link: code });
    } catch (error) {
      said.textContent = error.message;
    }
  };
  put(
    main,
    h(
      "div",
      { class: "sign-in" },
      h("h1", {}, "Sign in with this link?"),
      said,
      h(
        "p",
        {},
        `You are signed in as ${present.name} (${present.role}). The link signs this browser in as ` +
          "the person who created it, and everything you do from then on is recorded under that name.",
      ),
      h(
        "button",
        { type: "button", class: "primary", onclick: () => location.replace(back()) },
        `Stay signed in as ${present.name}`,
      ),
      h("button", { type: "button", onclick: replace }, "Sign out and use the link"),
    ),
  );
  main.querySelector("button").focus();
}

function form(why, person = null) {
  const field = h("input", {
    id: "token",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    "aria-describedby": "token-help sign-in-error",
  });
  const said = h("p", { id: "sign-in-error", class: "error", role: "alert" }, why ?? "");
  const tried = async (what) => {
    said.textContent = "";
    try {
      await enter(what);
    } catch (error) {
      said.textContent = error.message;
      field.value = "";
      field.focus();
    }
  };
  const typed = (event) => {
    event.preventDefault();
    if (field.value.trim()) tried({ token: field.value.trim() });
  };
  put(
    main,
    h(
      "form",
      { class: "sign-in", onsubmit: typed },
      h("h1", {}, "Sign in to Piperoll"),
      said,
      person &&
        h(
          "div",
          { class: "account" },
          h("p", {}, `Your certificate identifies you as ${person.name} (${person.role}).`),
          h("button", { type: "button", class: "primary", onclick: () => tried({}) }, `Continue as ${person.name}`),
        ),
      h("label", { for: "token" }, "Token"),
      field,
      h(
        "p",
        { id: "token-help", class: "hint" },
        "Tokens start with prl_. An administrator can create one with ",
        h("code", {}, "piperoll aggregator token create"),
        ". The token is sent once and not stored in this browser.",
      ),
      h("button", { type: "submit", class: person ? null : "primary" }, "Sign in"),
    ),
  );
  (person ? main.querySelector("button.primary") : field).focus();
}

begin();
