// Shows new entries as they arrive: one open connection, and no other request meanwhile.

import { parameters, tailAddress } from "../lib/api.js";
import { announce, visible } from "../lib/dom.js";
import { moment } from "../lib/time.js";

/**
 * Follows a filter from the given positions of the nodes. `row` gets entries, `node(event, words)` changes of nodes,
 * `beat`
 * the watermark, `slow(words)` that this page was dropped, `broken` that the connection was lost, `ended(words)` the
 * end.
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
  // The browser reconnects by itself, from the last position that it has seen, unless the server refused it.
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) return end("the aggregator refused to continue; reload the page");
    announce("connection lost, reconnecting");
    return broken();
  });
  return { stop: () => end(null) };
}

function nodeWords(said) {
  const why = said.reason ? `: ${visible(said.reason)}` : "";
  if (said.status === "ok") return `${said.node_id} is back, ${moment(said.since)}`;
  if (said.status === "invalid") return `${said.node_id} sends invalid data, ${moment(said.since)}${why}`;
  return `${said.node_id} is missing since ${moment(said.since)} (${said.status}${why})`;
}
