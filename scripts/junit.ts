/** Counts the results in a JUnit report of `bun test`. */

export interface TestCounts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** Reads the totals of the report's root element. @throws {Error} if the text has no totals */
export function countTests(report: string): TestCounts {
  const root = /<testsuites\b[^>]*>/.exec(report)?.[0];
  if (root === undefined) throw new Error("The JUnit report has no <testsuites> element");
  const tests = attribute(root, "tests");
  const failed = attribute(root, "failures");
  const skipped = attribute(root, "skipped");
  return { passed: tests - failed - skipped, failed, skipped };
}

function attribute(element: string, name: string): number {
  const text = new RegExp(`\\s${name}="(\\d+)"`).exec(element)?.[1];
  if (text === undefined) throw new Error(`The JUnit report has no count of ${name}`);
  return Number(text);
}
