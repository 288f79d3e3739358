/**
 * gVisor itself as the judge, if Go is installed: it loads exports of pgalloc and compares them
 * with their description, and pgalloc loads its checkpoints. It is not part of the tests, because
 * it builds a Go program:
 *
 *     bun test ./test/gvisor/with-gvisor.ts    # PGALLOC_GVISOR_SEEDS=20 for more than 5 seeds
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exportAll, exportTo, importAll, importFrom } from "../../src/gvisor/index.ts";
import { checkContents, checkDrop, checkRanges, type Expected } from "../support/expected.ts";
import { randomFile, type Shape } from "../support/random-file.ts";
import { replayTrace, type TraceOperation } from "../support/replay-trace.ts";
import { writeInlineForm } from "./support.ts";

const go = Bun.which("go");
const sources = join(import.meta.dir, "../../bench/peers/gvisor");
const scratch = mkdtempSync(join(tmpdir(), "pgalloc-with-gvisor-"));
const peer = join(scratch, "peer");
const counts = {
  checkedByGvisor: 0,
  loadedFromGvisor: 0,
  kernelCheckpoints: 0,
  traceOperations: 0,
  pages: 0,
};

beforeAll(() => {
  if (go !== null) run([go, "build", "-o", peer, "."], sources);
}, 300_000);
afterAll(() => {
  rmSync(scratch, { recursive: true });
  console.log(go === null ? "There is no Go here: nothing was checked." : JSON.stringify(counts));
}, 60_000);

function run(command: string[], cwd = scratch): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, {
    cwd,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  if (exitCode !== 0)
    throw new Error(`${command.join(" ")} exited with ${exitCode}:\n${stdout}${stderr}`);
  return stdout.toString();
}

let directories = 0;
const newDirectory = () => join(scratch, `${directories++}`);

/**
 * Makes gVisor load a checkpoint of pgalloc. It exits with 1 and a reason if anything differs from
 * the expectation.
 */
function checkByGvisor(directory: string, expected: Expected): void {
  writeFileSync(join(directory, "expected.json"), JSON.stringify(expected));
  expect(JSON.parse(run([peer, "check", "-dir", directory]))).toMatchObject({
    ok: true,
    totalSizeBytes: expected.totalSize,
  });
  counts.checkedByGvisor++;
}

const seeds = Array.from(
  { length: Number(process.env["PGALLOC_GVISOR_SEEDS"] ?? 5) },
  (_, i) => i + 1,
);
const cases = [
  ["empty", 1] as const,
  ...(["small", "huge", "mixed", "many"] as const).flatMap((shape) =>
    seeds.map((seed) => [shape, seed] as const),
  ),
];

describe.skipIf(go === null)("with gVisor", () => {
  test.each(cases)(
    "gVisor finds our file, %s, seed %d, in both forms and after an import",
    async (shape: Shape, seed) => {
      const { file, expected } = await randomFile(seed, shape);
      const directory = newDirectory();
      await exportTo(file, directory);
      file.destroy();
      checkByGvisor(directory, expected);
      const inline = newDirectory();
      writeInlineForm(directory, inline);
      checkByGvisor(inline, expected);
      using back = await importFrom(inline, { background: true });
      const again = newDirectory();
      await exportTo(back, again);
      checkByGvisor(again, expected);
    },
    120_000,
  );

  test.each(cases)(
    "importFrom finds gVisor's file, %s, seed %d, in both forms",
    async (shape, seed) => {
      for (const inline of [false, true]) {
        const directory = newDirectory();
        run([
          peer,
          "mkfile",
          "-dir",
          directory,
          "-shape",
          shape,
          "-seed",
          `${seed}`,
          ...(inline ? ["-inline"] : []),
        ]);
        const expected = JSON.parse(
          readFileSync(join(directory, "expected.json"), "utf8"),
        ) as Expected;
        for (const background of [false, true]) {
          using file = await importFrom(directory, { background });
          checkRanges(file, expected);
          await file.awaitLoad();
          counts.pages += checkContents(file, expected);
          if (background) await checkDrop(file, expected);
        }
        // And back to gVisor: it can free now what it could not free after losing count of
        // sub-released pages.
        using file = await importFrom(directory);
        const again = newDirectory();
        await exportTo(file, again);
        checkByGvisor(again, expected);
        counts.loadedFromGvisor++;
      }
    },
    120_000,
  );

  test.each(seeds)(
    "importAll and gVisor's kernel find each other's files, seed %d",
    async (seed) => {
      interface Kernel {
        main: Expected;
        private: Record<string, Expected>;
        order: string[];
      }
      const theirs = newDirectory();
      run([peer, "mkkernel", "-dir", theirs, "-seed", `${seed}`, "-private", `${seed % 5}`]);
      const kernel = JSON.parse(readFileSync(join(theirs, "kernel.json"), "utf8")) as Kernel;
      const files = await importAll(theirs, { background: true });
      expect([...files.keys()]).toEqual(["", ...kernel.order]);
      for (const [id, file] of [...files].reverse()) {
        const expected = id === "" ? kernel.main : kernel.private[id]!;
        await file.awaitLoad();
        checkRanges(file, expected);
        counts.pages += checkContents(file, expected);
      }
      const ours = newDirectory();
      await exportAll(ours, files);
      writeFileSync(join(ours, "kernel.json"), JSON.stringify(kernel));
      expect(JSON.parse(run([peer, "checkkernel", "-dir", ours]))).toMatchObject({
        ok: true,
        files: files.size,
      });
      for (const file of files.values()) file.destroy();
      counts.kernelCheckpoints++;
    },
    120_000,
  );

  test.each(seeds)(
    "MemoryFile gives gVisor's answers to a random trace, seed %d",
    async (seed) => {
      const path = join(scratch, `trace-${seed}.json`);
      run([peer, "mktrace", "-out", path, "-seed", `${seed}`, "-ops", "3000"]);
      counts.traceOperations += await replayTrace(
        JSON.parse(readFileSync(path, "utf8")) as TraceOperation[],
      );
    },
    120_000,
  );
});
