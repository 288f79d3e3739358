/**
 * Runs every check of this repository: types, lint and format, tests. Documents, examples and smoke
 * benches are tests under test/, so the last step covers them. All steps run even if one fails. The
 * exit code is 0 only if all passed and at least one test ran. The last printed line is the count
 * of the tests, from the runner's JUnit report.
 *
 * `--quick` leaves out the folders of tests that take minutes.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { countTests } from "./junit.ts";

const root = join(import.meta.dir, "..");
const failedSteps: string[] = [];

/** Runs one step with its output on this terminal. */
function run(name: string, command: string[], shown = command.join(" ")): void {
  console.log(`\n== ${name}: ${shown}`);
  const startedMs = performance.now();
  const { exitCode } = Bun.spawnSync(command, {
    cwd: root,
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit",
    env: {
      ...process.env,
      // Tests check whole structures (src/errors/invariant.ts).
      PGALLOC_ASSERT: "1",
      PATH: `${join(root, "node_modules/.bin")}:${process.env["PATH"] ?? ""}`,
    },
  });
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  if (exitCode !== 0) failedSteps.push(name);
  // The runner's own summary comes before the last line.
  if (name !== "tests")
    console.log(
      `== ${name}: ${exitCode === 0 ? "ok" : `FAILED with exit code ${exitCode}`} (${seconds} s)`,
    );
}

/** Folders of tests with kills, faults, terminated threads, benches, examples and packed builds. */
const LONG = ["bench", "examples", "package", "safety", "threads"];

/**
 * The files to test, sorted. Otherwise their order would be the file system's, and a test that
 * disturbs a later one would do so only on some machines.
 */
function testFiles(): string[] {
  const isQuick = process.argv.includes("--quick");
  const isLeftOut = (path: string) => isQuick && LONG.some((name) => path.startsWith(`${name}/`));
  const paths = [...new Bun.Glob("**/*.test.ts").scanSync(join(root, "test"))];
  return paths
    .filter((path) => !isLeftOut(path))
    .sort()
    .map((path) => `./test/${path}`);
}

run("types", ["tsc", "--noEmit"]);
run("lint and format", ["biome", "ci", "."]);

const directory = mkdtempSync(join(tmpdir(), "pgalloc-ok-"));
try {
  const report = join(directory, "junit.xml");
  const options = ["--timeout", "60000", "--reporter=junit", `--reporter-outfile=${report}`];
  const files = testFiles();
  const shown = `bun test ${options.slice(0, 2).join(" ")} (${files.length} files)`;
  run("tests", [process.execPath, "test", ...options, ...files], shown);
  const { passed, failed, skipped } = countTests(readFileSync(report, "utf8"));
  if (failed > 0 && !failedSteps.includes("tests")) failedSteps.push("tests");
  if (passed + failed === 0) failedSteps.push("tests (none ran)");
  if (failedSteps.length > 0) console.log(`\nFailed: ${failedSteps.join(", ")}`);
  console.log(`${passed} passed, ${failed} failed${skipped === 0 ? "" : `, ${skipped} skipped`}`);
} finally {
  rmSync(directory, { recursive: true });
}
process.exit(failedSteps.length === 0 ? 0 : 1);
