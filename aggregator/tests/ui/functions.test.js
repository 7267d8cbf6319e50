// Checks that every function of the pages is short enough to be read at once.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

/** Maximum number of lines of a function, with the functions inside it. */
const FUNCTION_LINES_MAX = 80;
/** First lines of functions: declarations, arrow functions, methods, and the end of parameters on several lines. */
const BEGINS = [/\bfunction\b/, /=>/, /^\s+(?:(?:static|async|get|set) )*\*?#?\w+\(.*\) \{$/, /^\s*[}\]]?\) \{$/];

const indentation = (line) => line.length - line.trimStart().length;
const isComment = (line) => /^\s*(?:\/\/|\/\*|\*)/.test(line);

/**
 * Returns the first line and the number of lines of every function. Formatted code shows where a function ends: the
 * lines inside it are indented further than its first line, and the line that closes it is not.
 */
function functionsOf(source) {
  const lines = source.split("\n");
  const isInside = (line, depth) => line === "" || indentation(line) > depth;
  const endOf = (first) => {
    const depth = indentation(lines[first]);
    let next = first + 1;
    for (;;) {
      while (next < lines.length && isInside(lines[next], depth)) next += 1;
      const isClosing = indentation(lines[next] ?? "") === depth && /^\s*[)}\]]/.test(lines[next] ?? "");
      if (!isClosing) return next;
      next += 1;
      // Parameters on lines of their own are closed before the body begins.
      if (!/(?:[({[]|=>)$/.test(lines[next - 1])) return next;
    }
  };
  return lines.flatMap((line, first) =>
    !isComment(line) && BEGINS.some((begin) => begin.test(line)) ? [{ first, count: endOf(first) - first }] : [],
  );
}

test("no function is longer than its limit", () => {
  const [pages, tests] = [new URL("../../ui/js/", import.meta.url), new URL("./", import.meta.url)];
  const sources = [pages, tests].flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".js"))
      .map((name) => ({ name, source: readFileSync(new URL(name, folder), "utf8") })),
  );
  const found = sources.flatMap(({ name, source }) => functionsOf(source).map((one) => ({ name, ...one })));
  assert.ok(found.length > 500, `only ${found.length} functions were found`);
  const long = found.filter(({ count }) => count > FUNCTION_LINES_MAX);
  assert.deepEqual(
    long.map(({ name, first, count }) => `${name}:${first + 1}: ${count} lines`),
    [],
  );
});

test("long functions of every form are found, and nothing else", () => {
  const body = (count, indent) => Array.from({ length: count }, () => `${indent}run();`);
  const longest = (...lines) => Math.max(0, ...functionsOf(lines.join("\n")).map(({ count }) => count));
  const forms = [
    [["function f() {"], "  ", ["}"]],
    [["export async function* f({ a }) {"], "  ", ["}"]],
    [["const f = (a) => {"], "  ", ["};"]],
    [["list.map((a) => {"], "  ", ["});"]],
    [["class A {", "  f() {"], "    ", ["  }", "}"]],
    [["class A {", "  async #f(a = 1) {"], "    ", ["  }", "}"]],
    [["class A {", "  static *f() {"], "    ", ["  }", "}"]],
    [["const a = {", "  get f() {"], "    ", ["  },", "};"]],
  ];
  for (const [begin, indent, end] of forms) {
    const form = begin.at(-1);
    assert.equal(longest(...begin, ...body(78, indent), ...end), 80, form);
    assert.equal(longest(...begin, ...body(79, indent), ...end), 81, form);
  }
  // Functions without braces, and parameters on lines of their own.
  assert.equal(longest("const f = () =>", "  h(", ...body(80, "    "), "  );", "const g = 1;"), 83);
  assert.equal(longest("export function f(", "  a,", "  b,", ") {", ...body(77, "  "), "}"), 82);
  assert.equal(longest("class A {", "  f({", "    a,", "  }) {", ...body(80, "    "), "  }", "}"), 82);
  // A class and its fields, a statement, and code of a module have no limit.
  const methods = Array.from({ length: 40 }, (_, at) => [`  f${at}() {`, "    run();", "  }", ""]).flat();
  assert.equal(longest("class A {", "  a = {", ...body(90, "    "), "  };", ...methods, "}"), 3);
  assert.equal(longest("for (const a of b) {", ...body(90, "  "), "}"), 0);
  assert.equal(longest("/** Returns () => void {", ...body(90, " * "), " */"), 0);
});
