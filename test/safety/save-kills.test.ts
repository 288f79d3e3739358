/**
 * SIGKILL at every system call of a save, in any thread: the directory then has the previous
 * complete checkpoint or the new one, and the next save removes the remains. The program kills
 * itself at the n-th wrapped call (support/fault-hook.ts), for every n until it succeeds.
 * bench/kills.ts kills at random moments instead.
 */
import { expect, test } from "bun:test";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { listing } from "../checkpoint/support/page-files.ts";
import { Faults } from "./support/fault-control.ts";
import { checkStamped, saveStamped } from "./support/stamped.ts";

const PAGES = 70;
const program = join(import.meta.dir, "support/save-program.ts");
const LANES = 2;

interface Outcome {
  readonly killed: boolean;
  readonly version: number;
}

/** One save of version 2 over version 1, killed at call `at`. */
async function killAt(faults: Faults, directory: string, at: number): Promise<Outcome> {
  faults.arm({ action: "Kill", from: at, until: at + 1 });
  const child = Bun.spawn({
    ...faults.command(program, directory, String(PAGES), "2"),
    stdout: "pipe",
    stderr: "inherit",
  });
  const output = await new Response(child.stdout).text();
  await child.exited;
  const killed = child.signalCode === "SIGKILL";
  if (!killed) expect(output).toBe("saved\n");
  return { killed, version: await checkStamped(directory, PAGES) };
}

async function killAtEach(): Promise<Outcome[]> {
  const root = mkdtempSync(join(tmpdir(), "pgalloc-kills-"));
  const original = join(root, "original");
  await saveStamped(original, PAGES, 1);
  const clean = listing(original);
  const outcomes: Outcome[] = [];
  let next = 0;
  let survived = false;
  const lane = async (number: number) => {
    using faults = new Faults();
    while (!survived) {
      const at = next++;
      const directory = join(root, `lane-${number}-${at}`);
      cpSync(original, directory, { recursive: true });
      const outcome = await killAt(faults, directory, at);
      outcomes[at] = outcome;
      if (!outcome.killed) survived = true;
      // The next save works, and leaves no file of the killed one.
      if (outcome.killed) await saveStamped(directory, PAGES, 3);
      if (outcome.killed) expect(await checkStamped(directory, PAGES)).toBe(3);
      expect(listing(directory)).toEqual(clean);
      rmSync(directory, { recursive: true });
    }
  };
  try {
    await Promise.all(Array.from({ length: LANES }, (_, number) => lane(number)));
    return outcomes;
  } finally {
    rmSync(root, { recursive: true });
  }
}

test("saveTo killed at any system call leaves the old or the new checkpoint", async () => {
  const outcomes = await killAtEach();
  const killed = outcomes.filter((outcome) => outcome.killed);
  console.log(`    killed at ${killed.length} calls, each time a complete checkpoint`);
  expect(outcomes.every(({ version }) => version === 1 || version === 2)).toBe(true);
  // Once the new checkpoint is there it stays: kills after the commit find version 2, kills before
  // it version 1.
  const versions = killed.map(({ version }) => version);
  expect(versions).toEqual(versions.toSorted((a, b) => a - b));
  expect(new Set(versions)).toEqual(new Set([1, 2]));
}, 120_000);
