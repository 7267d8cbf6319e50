// Unit tests of the pure parts of the pages: `node --test aggregator/tests/ui/`.

import assert from "node:assert/strict";
import { test } from "node:test";

// What a browser has and these modules read: the URL, and what the user chose before.
const stored = new Map();
globalThis.location = { search: "" };
globalThis.localStorage = {
  getItem: (key) => stored.get(key) ?? null,
  setItem: (key, value) => stored.set(key, value),
};

const { add, term, terms } = await import("../../ui/js/lib/filter.js");
const { address, query, read } = await import("../../ui/js/lib/state.js");
const { bucketFor, micros, moment, widthText, zone } = await import("../../ui/js/lib/time.js");

test("a filter is cut into conditions where it ends, and nowhere else", () => {
  const texts = (filter) => terms(filter).map((found) => found.text);
  assert.deepEqual(texts('user:alice  -action:"a b"'), ["user:alice", '-action:"a b"']);
  assert.deepEqual(texts("(user:a OR user:b) ip:203.0.113.0/24"), ["(user:a OR user:b)", "ip:203.0.113.0/24"]);
  assert.deepEqual(texts("user:a OR user:b"), ["(user:a OR user:b)"]);
  assert.deepEqual(texts("NOT user:a"), ["NOT user:a"]);
  assert.deepEqual(texts(""), []);
  // Version 1 has neither OR nor NOT: there they are words.
  assert.deepEqual(texts("v1: a OR b"), ["a", "OR", "b"]);
});

test("conditions point at their place in the text", () => {
  const filter = 'user:alice NOT action:"a b" v';
  for (const { text, from, to } of terms(filter)) assert.equal(filter.slice(from, to).replace(/\s+/g, " "), text);
});

test("a value that is added can be read again", () => {
  for (const value of ["alice", "a b", 'say "hi"', "back\\slash", "(x)", "OR", "a,b", "-x", "*", "", "ü", "a:b"]) {
    const filter = add("outcome:failure", term("user", value, false));
    const found = terms(filter);
    assert.equal(found.length, 2, filter);
    assert.equal(found[1].key, "user", filter);
    const excluded = terms(add("", term("user", value, true)));
    assert.equal(excluded[0].negated, true, value);
  }
});

test("the state of a view survives its address", () => {
  const states = [
    read(""),
    { ...read(""), filter: "", from: "24h", order: "asc" },
    { ...read(""), filter: 'user:"a b" & c=d', to: "2026-04-15T08:00:00Z", axis: "occurred" },
    { ...read(""), cursor: "abc", row: "mx1/42@0f", live: true },
  ];
  for (const state of states) assert.deepEqual(read(new URL(address(state), "https://x").search), state);
  assert.deepEqual(query(states[1]), { filter: "", from: "24h", to: "" });
});

test("times are shown in the zone that the user chose", () => {
  assert.equal(moment("2026-04-15T08:00:00.123456Z"), "2026-04-15 08:00:00 UTC");
  assert.equal(moment("2026-04-15T08:00:00.123456Z", { millis: true }), "2026-04-15 08:00:00.123 UTC");
  assert.equal(moment("9999-12-31T23:59:59.999999Z"), "now");
  assert.equal(moment(null), "unknown");
  zone.set("local");
  assert.match(moment("2026-04-15T08:00:00.123456Z"), /UTC[+−]\d\d:\d\d$/);
  // The URL outranks the stored choice.
  globalThis.location.search = "?zone=utc";
  assert.equal(moment("2026-04-15T08:00:00.123456Z"), "2026-04-15 08:00:00 UTC");
  globalThis.location.search = "";
  zone.set("utc");
});

test("microseconds are not lost", () => {
  assert.equal(micros("2026-04-15T08:00:00.000001Z") - micros("2026-04-15T08:00:00.000000Z"), 1);
  assert.equal(micros("1970-01-01T00:00:01Z"), 1_000_000);
});

test("buckets of a histogram are whole units, and not too many", () => {
  for (const seconds of [1, 60, 3_600, 86_400, 7 * 86_400, 365 * 86_400]) {
    const width = bucketFor(seconds);
    assert.ok(width >= 1 && seconds / width <= 200, `${seconds}: ${width}`);
    assert.match(widthText(width), /^\d+[smhdw]$/);
  }
});
