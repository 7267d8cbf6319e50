// Unit tests of the parts of the components that need no browser: `node --test aggregator/tests/ui/`.

import assert from "node:assert/strict";
import { test } from "node:test";

const components = (name) => import(`../../ui/js/components/${name}.js`);
const { isVerdictOn, verdictBadge } = await components("drawer-verdicts");
const { positionsAfter } = await components("follower");
const { extent } = await components("histogram");
const { NodeStates, stateOfEvent } = await components("node-states");
const { uncertainPairs, uncertainRows } = await components("order");
const { complete, otherConditions, suggestKeys, suggestStates, suggestValues } = await components("suggest");

const entry = (node, seq, time) => ({
  entry: { node_id: node, seq, generation: "g", timestamp: `2026-04-15T08:00:${time}Z` },
});

test("the order of two nodes' entries is uncertain while their clocks may differ by more than their distance", () => {
  const rows = [entry("a", 2, "00.010000"), entry("b", 7, "00.005000"), entry("a", 1, "00.001000")];
  const pairs = (uncertainty) => uncertainPairs(rows, uncertainty).map((pair) => pair.map((row) => row.entry.seq));
  assert.deepEqual(pairs(3), []);
  assert.deepEqual(pairs(4), [[7, 1]]);
  assert.deepEqual(pairs(100), [
    [2, 7],
    [7, 1],
  ]);
  // Before the clocks have been compared, only neighbours are marked.
  assert.deepEqual(pairs(null), [
    [2, 7],
    [7, 1],
  ]);
  assert.deepEqual(uncertainPairs([entry("a", 1, "x"), entry("b", 1, "x")], null), []);
  const messages = uncertainRows(rows, 4);
  assert.deepEqual([...messages.keys()], ["b/7@g", "a/1@g"]);
  assert.match(messages.get("b/7@g"), /entry of a is uncertain: clocks may differ by up to 4 ms/);
});

test("the tail starts after the head of each node that was asked", () => {
  const nodes = [
    { node_id: "a", generation: "g", head_seq: 41, status: "ok" },
    { node_id: "b", generation: "h", head_seq: null, status: "ok" },
    { node_id: "c", generation: "i", head_seq: 7, status: "excluded" },
    { node_id: "d", generation: null, head_seq: null, status: "unreachable" },
  ];
  assert.equal(positionsAfter(nodes), "a:g:42,b:h:0");
});

test("a node's state is reported once, and a new reason of a broken node once more", () => {
  const states = new NodeStates();
  states.adopt([
    { node_id: "a", status: "ok", verdict: "ok" },
    { node_id: "b", status: "timeout" },
  ]);
  assert.equal(states.change("a", "ok"), false);
  assert.equal(states.change("a", stateOfEvent({ status: "invalid" }), "gap"), true);
  assert.equal(states.change("a", "broken", "gap"), false);
  assert.equal(states.change("a", "broken", "signature"), true);
  assert.equal(states.change(undefined, "broken", "gap"), false);
  // The tail knows better than an answer that was read before.
  states.adopt([{ node_id: "a", status: "ok", verdict: "ok" }]);
  assert.equal(states.change("a", "broken", "signature"), false);
  assert.equal(states.change("a", stateOfEvent({ status: "ok" })), true);
});

test("a missing node that sends heartbeats has returned, but is not tried all the time", () => {
  const states = new NodeStates();
  const beat = [
    { node_id: "a", status: "ok" },
    { node_id: "b", status: "ok" },
    { node_id: "c", status: "timeout" },
  ];
  const nodes = ["unreachable", "ok", "timeout"].map((status, at) => ({ node_id: "abc"[at], status, verdict: "ok" }));
  states.adopt(nodes);
  assert.deepEqual(states.findReturned(beat), ["a"]);
  assert.deepEqual(states.findReturned(beat), []);
});

test("suggestions continue the word at the caret", () => {
  const keys = [
    { key: "user", about: "who" },
    { key: "action", about: "what" },
  ];
  const range = { from: 1, to: 3 };
  assert.deepEqual(suggestKeys(keys, "Us", range), [{ ...range, text: "user:", label: "user:", detail: "who" }]);
  assert.equal(suggestKeys(keys, "", range).length, 2);
  assert.deepEqual(
    suggestStates(["flagged", "late"], "l", range).map((one) => one.text),
    ["late"],
  );
  const values = [
    { value: "al ice", count: 1_200 },
    { value: "bob", count: 3 },
  ];
  const [found, ...others] = suggestValues(values, "user", "L", range);
  assert.deepEqual(found, { ...range, text: '"al ice"', label: "al ice", detail: "1,200" });
  assert.deepEqual(others, []);
});

test("the other conditions narrow the values, except inside alternatives", () => {
  assert.equal(otherConditions("user:a action:b -ip:c", { from: 7, to: 15 }), "user:a -ip:c");
  assert.equal(otherConditions("user:a OR action:b", { from: 10, to: 18 }), "");
  assert.equal(otherConditions("ip:c (user:a action:b)", { from: 6, to: 12 }), "");
});

test("an accepted suggestion leaves the caret where the next word begins", () => {
  const text = (filter, from, to, suggestion) => {
    const { filter: done, caret } = complete(filter, { from, to, text: suggestion });
    return `${done.slice(0, caret)}|${done.slice(caret)}`;
  };
  assert.equal(text("us", 0, 2, "user:"), "user:|");
  assert.equal(text("user:al", 5, 7, "alice"), "user:alice |");
  assert.equal(text("user:al,bob x", 5, 7, "alice"), "user:alice|,bob x");
  assert.equal(text("user:al   x", 5, 7, "alice"), "user:alice |x");
});

test("a chart by time of occurrence spans its buckets, and another one its range", () => {
  const [day, at] = [86_400, (text) => Date.parse(text) * 1000];
  const answer = (from, to, ...buckets) => ({
    from: `${from}T00:00:00Z`,
    to: `${to}T00:00:00Z`,
    stats: { histogram: { buckets: buckets.map((bucket) => ({ from: `${bucket}T00:00:00Z` })) } },
  });
  const range = (shown, axis) => {
    const { from, to, width } = extent(shown, day, axis, at("2026-04-20T00:00:00Z"));
    assert.equal(width, day * 1e6);
    return [from, to].map((micros) => new Date(micros / 1000).toISOString().slice(0, 10));
  };
  const week = answer("2026-04-08", "2026-04-15", "2026-04-10", "2026-04-11");
  assert.deepEqual(range(week, "recorded"), ["2026-04-08", "2026-04-15"]);
  assert.deepEqual(range(week, "occurred"), ["2026-04-10", "2026-04-12"]);
  assert.deepEqual(range(answer("0001-01-01", "2026-04-15", "2026-04-10"), "recorded"), ["2026-04-10", "2026-04-15"]);
  assert.deepEqual(range(answer("0001-01-01", "2026-04-15"), "occurred"), ["2026-04-19", "2026-04-20"]);
});

test("a verdict counts only if it names exactly this entry", () => {
  const row = { entry: { node_id: "a", seq: 4, generation: "g", id: "x" } };
  const details = { id: "x", node: "a", seq: 4, generation: "g" };
  const verdict = (more, integrity = "ok", category = "audit") => ({
    integrity,
    entry: { category, details: { ...details, ...more } },
  });
  assert.equal(isVerdictOn(verdict({}), row), true);
  for (const more of [{ id: "y" }, { node: "b" }, { seq: 5 }, { seq: "4" }, { generation: "h" }])
    assert.equal(isVerdictOn(verdict(more), row), false, JSON.stringify(more));
  assert.equal(isVerdictOn(verdict({}, "violation"), row), false);
  assert.equal(isVerdictOn(verdict({}, "ok", "data"), row), false);
  assert.equal(isVerdictOn({ integrity: "erased", entry: null }, row), false);
  assert.equal(isVerdictOn({ integrity: "ok", entry: { category: "audit", details: null } }, row), false);
});

test("a verdict that is none is shown as it was written", () => {
  assert.equal(verdictBadge("reviewed"), "\u2713 true positive");
  assert.equal(verdictBadge("constructor"), "constructor");
  assert.equal(verdictBadge("__proto__"), "__proto__");
  assert.equal(verdictBadge(undefined), "?");
  assert.equal(verdictBadge({ toString: null }), "?");
});
