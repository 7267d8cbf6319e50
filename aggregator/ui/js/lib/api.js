// Client of the public HTTP API. The session is a cookie that scripts cannot read.

const ROOT = "/api/v1";

/** An error response: a code for programs, and a message for people. */
export class Problem extends Error {
  constructor(status, code, detail, envelope = null) {
    super(detail);
    this.status = status;
    this.code = code;
    this.envelope = envelope;
  }
}

/** @type {{ used: () => void, signedOut: (problem: Problem) => void }} */
const listeners = { used: () => {}, signedOut: () => {} };
/**
 * Registers callbacks: `used` after a successful request, `signedOut` when the server no longer accepts the session.
 */
export function onSession(used, signedOut) {
  Object.assign(listeners, { used, signedOut });
}

/**
 * Sends one request; throws a Problem unless the response is successful.
 * @param {string} method
 * @param {string} path below the API root
 * @param {{ body?: BodyInit, signal?: AbortSignal, headers?: Record<string, string> }} [options]
 */
async function ask(method, path, { body, signal, headers } = {}) {
  let answer;
  try {
    answer = await fetch(ROOT + path, { method, body, signal, headers, credentials: "same-origin", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "unreachable", "cannot reach the aggregator; check the network connection");
  }
  if (answer.ok) {
    if (!headers?.["piperoll-unattended"]) listeners.used();
    return answer;
  }
  const problem = await problemOf(answer);
  if (problem.status === 401 && path !== "/session") listeners.signedOut(problem);
  throw problem;
}

async function problemOf(answer) {
  const said = await answer.json().catch(() => null);
  if (said?.detail) return new Problem(answer.status, said.code, said.detail);
  if (said?.nodes) {
    const words =
      said.answered === 0
        ? "no node answered"
        : `${said.answered} of ${said.expected} nodes answered, but all are required`;
    return new Problem(answer.status, "not_complete", words, said);
  }
  return new Problem(answer.status, "unknown", `the aggregator returned status ${answer.status}`);
}

export const get = async (path, signal, { unattended = false } = {}) =>
  // Requests that the user did not cause must not keep the session alive.
  whole(await ask("GET", path, { signal, headers: unattended ? { "piperoll-unattended": "1" } : {} }));
export const getText = async (path) => (await ask("GET", path)).text();
export const getRaw = async (path) => ask("GET", path);

/** Sends JSON; returns the JSON of the response, or null if it has none. */
export async function send(method, path, value) {
  const headers = value === undefined ? {} : { "content-type": "application/json" };
  const answer = await ask(method, path, { body: value === undefined ? undefined : JSON.stringify(value), headers });
  return answer.status === 204 ? null : whole(answer);
}

/** Reads the JSON of a response; a truncated response is an error. */
async function whole(answer) {
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "broken_off", "the response was interrupted; try again");
  }
}

/** Maximum number of attempts while the server has no free slot for a count. */
const TRIES = 4;
const PAUSE_MS = 700;

/** Like [get], but retries: the server limits the number of concurrent counts of all callers. */
export async function getCounts(path, signal, options) {
  for (let tried = 1; ; tried += 1) {
    try {
      return await get(path, signal, options);
    } catch (error) {
      if (error.status !== 429 || tried === TRIES) throw error;
      await new Promise((done) => setTimeout(done, PAUSE_MS * tried));
      signal?.throwIfAborted();
    }
  }
}

/** Sends JSON or bytes; returns the response itself, to be read as a stream. */
export async function stream(method, path, value, signal) {
  const bytes = value instanceof Blob;
  const headers = { "content-type": bytes ? "application/octet-stream" : "application/json" };
  return ask(method, path, { body: bytes ? value : JSON.stringify(value), headers, signal });
}

/** URL of the live tail. */
export const tailAddress = (parameters) => `${ROOT}/audit-log/tail?${parameters}`;

/** Builds a query string; pairs without a value are omitted. */
export function parameters(pairs) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(pairs)) {
    if (value !== undefined && value !== null && value !== "") found.set(name, value);
  }
  return found.toString();
}
