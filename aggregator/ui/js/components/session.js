// The user's session. The server ends a session by itself; the page warns beforehand.

import { Problem, get, onSession, send } from "../lib/api.js";
import { h, notice } from "../lib/dom.js";
import { dialog } from "./dialog.js";

const LAST_USE = "piperoll.lastUse";
const WARN_SECONDS = 60;

let me = null;
let timer = 0;

/** Returns the signed-in user, or redirects to the sign-in page. */
export async function signedIn() {
  onSession(used, signedOut);
  try {
    me = await get("/session");
  } catch (error) {
    if (error instanceof Problem && error.status === 401) return leave(error);
    throw error;
  }
  if (!me.session) return leave(null);
  used();
  return me;
}

export const may = (permission) => Boolean(me?.permissions.includes(permission));

/** Redirects to the sign-in page, which returns to this page. */
function leave(problem) {
  const back = location.pathname + location.search;
  const why = problem ? `&why=${encodeURIComponent(problem.code)}` : "";
  location.replace(`/sign-in?back=${encodeURIComponent(back)}${why}`);
  return new Promise(() => {});
}

export async function signOut() {
  await send("DELETE", "/session").catch(() => {});
  location.assign("/sign-in");
}

function used() {
  // All tabs of this browser share the session, so the last use in any of them counts.
  localStorage.setItem(LAST_USE, String(Date.now()));
  schedule();
}

/** Returns the seconds until the session ends, because it is idle or has reached its maximum length. */
function left() {
  const quiet = (Date.now() - Number(localStorage.getItem(LAST_USE) ?? Date.now())) / 1000;
  return Math.min(me.session.idle_seconds - quiet, untilOld());
}

const untilOld = () => (new Date(me.session.ends).getTime() - Date.now()) / 1000;

/** Schedules the warning by the local clock, without a request to the server. */
function schedule() {
  clearTimeout(timer);
  if (!me?.session || over) return;
  const warn = Math.min(WARN_SECONDS, me.session.idle_seconds / 2);
  if (left() <= 0)
    signedOut({ message: "Your session expired: it was idle for too long, or reached its maximum length." });
  else if (left() <= warn) warnOnce();
  else warning?.close();
  timer = setTimeout(schedule, Math.max(0.5, left() > warn ? left() - warn : left()) * 1000);
}

let warning = null;
let saidOld = false;
function warnOnce() {
  if (warning) return;
  const old = untilOld() <= left();
  if (old && saidOld) return;
  saidOld ||= old;
  warning = dialog(
    old ? "Your session is about to end" : "Still there?",
    [
      h(
        "p",
        {},
        `${old ? "Your session has almost reached its maximum length." : "Your session is idle."} ` +
          `You will be signed out in ${Math.round(left())} seconds.`,
      ),
    ],
    [
      old
        ? { label: "Close", primary: true }
        : {
            label: "Stay signed in",
            primary: true,
            run: () =>
              get("/session")
                .then(used)
                .catch((error) => (error.status === 401 ? signedOut(error) : notice(error.message, true))),
          },
      { label: "Sign out", run: signOut },
    ],
    {
      closed: () => {
        warning = null;
      },
    },
  );
}

let over = false;
/** Greys the page out but keeps it, so that signing out does not discard what the user is reading. */
function signedOut(problem) {
  if (over) return;
  over = true;
  clearTimeout(timer);
  warning?.close();
  document.body.classList.add("stale");
  dialog(
    "You have been signed out",
    [h("p", {}, problem?.message ?? "Sign in again to continue.")],
    [{ label: "Sign in again", primary: true, run: () => leave(null) }],
    { closed: () => leave(null) },
  );
}
