/**
 * Incremental saves that are killed or fail: over several page files, with compaction, raw and
 * compressed. The directory then has the version before or the new one, complete, and the next save
 * works.
 */
import { describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errnoNumber } from "../../ffi/index.ts";
import { MemoryFile, type SaveOptions } from "../../src/index.ts";
import { listing, pageFiles } from "../checkpoint/support/page-files.ts";
import { CALL_NAMES, type CallName, Faults } from "./support/fault-control.ts";
import { beginFaults } from "./support/in-process.ts";
import { COMPACTING_VERSION, checkLayers, saveLayer, saveLayers } from "./support/layered.ts";

const program = join(import.meta.dir, "support/layered-program.ts");
const LANES = 2;
/** Calls that change something or read the base. */
const KILLING: readonly CallName[] = [
  "openat",
  "renameat",
  "unlinkat",
  "fsync",
  "pwrite",
  "ftruncate",
  "flock",
  "getdents",
];
/**
 * The calls at which saves are killed. Compressed ones at calls of any kind, of the load before the
 * save, too: at every fifth, from a random one on, or at each with PGALLOC_EVERY_CALL.
 */
const KILLED_AT = {
  none: { calls: KILLING, step: 1 },
  zstd: { calls: CALL_NAMES, step: process.env["PGALLOC_EVERY_CALL"] === undefined ? 5 : 1 },
};

async function withRoot<T>(use: (root: string) => Promise<T>): Promise<T> {
  const root = mkdtempSync(join(tmpdir(), "pgalloc-incremental-faults-"));
  try {
    return await use(root);
  } finally {
    rmSync(root, { recursive: true });
  }
}

/** Saves a version over a copy of `original`, killed at call `at`. True if it was killed. */
async function killAt(
  faults: Faults,
  directory: string,
  at: number,
  compression: keyof typeof KILLED_AT,
): Promise<boolean> {
  const { calls } = KILLED_AT[compression];
  faults.arm({ action: "Kill", calls, from: at, until: at + 1 });
  const version = String(COMPACTING_VERSION);
  const child = Bun.spawn({
    ...faults.command(program, directory, version, compression),
    stdout: "pipe",
    stderr: "inherit",
  });
  const output = await new Response(child.stdout).text();
  await child.exited;
  const isKilled = child.signalCode === "SIGKILL";
  if (!isKilled) expect(output).toBe("saved\n");
  return isKilled;
}

describe.each(["none", "zstd"] as const)("compression %s", (compression) => {
  test("killed at such a call, a save on top of others leaves one or the other", async () => {
    await withRoot(async (root) => {
      const original = join(root, "original");
      await saveLayers(original, COMPACTING_VERSION - 1, { compression });
      expect(pageFiles(original).length).toBeGreaterThan(5);
      const versions: number[] = [];
      const { step } = KILLED_AT[compression];
      let next = Math.floor(Math.random() * step);
      let hasSurvived = false;
      const lane = async () => {
        using faults = new Faults();
        while (!hasSurvived) {
          const at = next;
          next += step;
          const directory = join(root, `at-${at}`);
          cpSync(original, directory, { recursive: true });
          const isKilled = await killAt(faults, directory, at, compression);
          const version = await checkLayers(directory);
          if (isKilled) versions[at] = version;
          else hasSurvived = true;
          // The next save works, and leaves no file of the killed one.
          using file = await MemoryFile.loadFrom(directory);
          await saveLayer(file, directory, version + 1, { compression });
          expect(await checkLayers(directory)).toBe(version + 1);
          expect(listing(directory).filter((name) => name.endsWith(".tmp"))).toEqual([]);
          rmSync(directory, { recursive: true });
        }
      };
      await Promise.all(Array.from({ length: LANES }, lane));
      const killed = versions.filter((version) => version !== undefined);
      console.log(`    killed at ${killed.length} calls, each time a complete checkpoint`);
      const known = [COMPACTING_VERSION - 1, COMPACTING_VERSION];
      for (const version of killed) expect(known).toContain(version);
      if (step === 1) expect(new Set(killed)).toEqual(new Set(known));
    });
  }, 240_000);
});

const FAILING: readonly CallName[] = [
  ...["open", "openat", "getdents", "renameat", "flock", "fsync", "lseek"],
  ...["pread", "pwrite", "fstat", "ftruncate", "unlinkat"],
] as CallName[];

describe.each(["EIO", "ENOSPC"])("%s", (code) => {
  test("failing at each call once, a save on top of others leaves one or the other", async () => {
    const { faults, end } = await beginFaults();
    try {
      await withRoot(async (directory) => {
        const options: SaveOptions = { compression: "zstd" };
        await saveLayers(directory, COMPACTING_VERSION - 1, options);
        using file = await MemoryFile.loadFrom(directory);
        let version = COMPACTING_VERSION - 1;
        let failures = 0;
        for (let at = 0; ; at++) {
          const value = errnoNumber(code);
          faults.arm({ action: "Fail", calls: FAILING, value, from: at, until: at + 1 });
          const failure = await saveLayer(file, directory, version + 1, options).then(
            () => undefined,
            (error) => error,
          );
          const { hits } = faults;
          faults.disarm();
          const found = await checkLayers(directory);
          if (hits === 0) {
            expect([failure, found]).toEqual([undefined, version + 1]);
            break;
          }
          if (failure === undefined) expect(found).toBe(version + 1);
          else expect([version, version + 1]).toContain(found);
          if (failure !== undefined) failures++;
          version = found;
        }
        console.log(`    ${failures} calls failed with ${code}, one at a time`);
        expect(failures).toBeGreaterThan(15);
      });
    } finally {
      await end();
    }
  }, 120_000);
});
