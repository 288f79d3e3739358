/** Checks the reader of the runner's report, from which the last line of `bun run ok` comes. */
import { expect, test } from "bun:test";
import { countTests } from "../../scripts/junit.ts";

test("totals come from the report's root element", () => {
  const report = `<?xml version="1.0"?>
<testsuites name="bun test" tests="12" assertions="30" failures="2" skipped="3" time="1.5">
  <testsuite name="a" tests="1" failures="1" skipped="0"></testsuite>
</testsuites>`;
  expect(countTests(report)).toEqual({ passed: 7, failed: 2, skipped: 3 });
});

test("a report without totals is an error, not zero", () => {
  expect(() => countTests("")).toThrow("no <testsuites>");
  expect(() => countTests('<testsuites name="x" tests="1">')).toThrow("no count of failures");
});
