// Client of the live tail: one open connection, and no other request while it is open.

import { parameters, tailAddress } from "../lib/api.js";
import { announce, visible } from "../lib/dom.js";
import { moment } from "../lib/time.js";

/**
 * Follows a filter from the given positions of the nodes. Calls `row` with each entry, `node(event, words)` when the
 * state of a node changes, `beat` with the watermark, `slow(words)` when the server dropped this client, `broken` when
 * the connection was lost, and `ended(words)` at the end.
 */
export function follow({ filter, after }, { row, node, beat, slow, broken, ended }) {
  const source = new EventSource(tailAddress(parameters({ filter, after })));
  const data = (event) => JSON.parse(event.data);
  let over = false;
  const end = (words) => {
    if (over) return;
    over = true;
    source.close();
    ended(words);
  };
  source.addEventListener("entry", (event) => row(data(event)));
  source.addEventListener("node", (event) => {
    const said = data(event);
    node(said, nodeWords(said));
  });
  source.addEventListener("heartbeat", (event) => beat(data(event)));
  source.addEventListener("dropped", () => slow("This page fell behind; resuming after the last entry received."));
  source.addEventListener("ended", (event) => end(data(event).reason));
  // The browser reconnects automatically from the last position it received, unless the server rejects the request.
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) return end("the aggregator rejected the request; reload the page");
    announce("connection lost, reconnecting");
    return broken();
  });
  return { stop: () => end(null) };
}

function nodeWords(said) {
  const why = said.reason ? `: ${visible(said.reason)}` : "";
  if (said.status === "ok") return `${said.node_id} is back, ${moment(said.since)}`;
  if (said.status === "invalid") return `${said.node_id} has sent invalid data since ${moment(said.since)}${why}`;
  return `${said.node_id} has been missing since ${moment(said.since)} (${said.status}${why})`;
}
