/**
 * Consistent saves of a program that frees, recycles, decommits, evicts, uses huge pages and was
 * itself restored in the background: each checkpoint equals, page by page, a copy of everything
 * that a function makes at the instant.
 */
import { afterEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { MemoryFile } from "../../src/index.ts";
import { type Copy, copyAll, difference, RandomProgram } from "./support/random-program.ts";

const SAVES = 4;
/** Where syncs cost nothing: what survives a crash is tested elsewhere. */
const MEMORY = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
const FIRST_BYTES = 6 * 2 ** 20;
const directories: string[] = [];
/** Of all saves. */
let rounds = 0;

afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true });
});

/** Saves a running program several times to one place, and compares each checkpoint. */
async function runAndSave(program: RandomProgram, directory: string): Promise<Copy> {
  let copy: Copy | undefined;
  program.start();
  try {
    for (let save = 0; save < SAVES; save++) {
      await Bun.sleep(program.below(6));
      const report = await program.file.saveTo(directory, {
        // Less than the program has, so that there are rounds.
        targetPauseMs: 1,
        incremental: true,
        userData: () => {
          copy = copyAll(program.file);
          return new TextEncoder().encode(String(save));
        },
      });
      expect(report.isConsistent).toBe(true);
      rounds += report.rounds.length;
      using back = await MemoryFile.loadFrom(directory);
      expect(new TextDecoder().decode(back.userData!)).toBe(String(save));
      const seen = difference(copy!, copyAll(back));
      if (seen !== null) throw new Error(`Save ${save}: ${seen}`);
    }
    return copy!;
  } finally {
    await program.stop();
  }
}

test("saveTo shows each page as a copy of everything at the instant does", async () => {
  const seed = fc.integer({ min: 1, max: 2 ** 31 });
  await fc.assert(
    fc.asyncProperty(seed, async (drawn) => {
      const directory = mkdtempSync(join(MEMORY, "pgalloc-instant-"));
      directories.push(directory);
      const options = { delayedEviction: "manual", expectHugepages: true } as const;
      using file = MemoryFile.create(options);
      file.view(file.allocate(FIRST_BYTES)).fill(5);
      const first = await runAndSave(new RandomProgram(file, drawn), directory);
      // A restored program goes on while it is loaded, and saves over its own checkpoint.
      using back = await MemoryFile.loadFrom(directory, { ...options, background: true });
      await runAndSave(new RandomProgram(back, drawn + 1, first.runs), directory);
      expect(first.pages.size).toBeGreaterThan(0);
    }),
    { numRuns: 5 },
  );
  expect(rounds).toBeGreaterThan(0);
}, 120_000);
