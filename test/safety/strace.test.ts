/**
 * Faults from outside, if strace is installed: the kernel's answers are replaced under the real
 * program, whose code is unchanged. The other fault tests inject above libc; these cover the layers
 * below.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkStamped, saveStamped } from "./support/stamped.ts";
import { listing, onlyPageFile } from "../checkpoint/support/page-files.ts";

const PAGES = 2048;
const supportDirectory = join(import.meta.dir, "support");
/** strace must be installed and allowed: containers often forbid it. */
const hasStrace =
  Bun.which("strace") !== null &&
  Bun.spawnSync(["strace", "-f", "-e", "trace=none", "true"]).exitCode === 0;

let root: string;
let checkpoint: string;
beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "pgalloc-strace-"));
  checkpoint = join(root, "checkpoint");
  await saveStamped(checkpoint, PAGES, 1);
});
afterAll(() => rmSync(root, { recursive: true }));

/** The kernel's calls behind pwrite(3) and renameat(3). musl and arm64 use others than glibc. */
const WRITE = "pwrite64,pwritev2";
const RENAME = process.arch === "arm64" ? "renameat,renameat2" : "rename,renameat,renameat2";

/** Runs a program with `inject` applied to its calls on files below `path`. */
async function trace(
  inject: readonly string[],
  path: string | undefined,
  program: string,
  ...args: string[]
) {
  const log = join(root, "strace.log");
  const cmd = [
    ...["strace", "-f", "-qq", "-o", log, ...inject.flatMap((rule) => ["-e", `inject=${rule}`])],
    ...(path === undefined ? [] : ["-P", path]),
    ...[process.execPath, join(supportDirectory, program), ...args],
  ];
  const child = Bun.spawn(cmd, { stdout: "pipe", stderr: "pipe", timeout: 60_000 });
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  await child.exited;
  const injected = (await Bun.file(log).text())
    .split("\n")
    .filter((line) => line.includes("(INJECTED)")).length;
  return { stdout, stderr, signal: child.signalCode, exitCode: child.exitCode, injected };
}

async function restore(queue: string, ...inject: string[]) {
  const result = await trace(
    inject,
    onlyPageFile(checkpoint),
    "restore-program.ts",
    checkpoint,
    String(PAGES),
    queue,
  );
  expect([result.exitCode, result.stderr]).toEqual([0, ""]);
  return { ...JSON.parse(result.stdout), injected: result.injected } as {
    failed: number;
    codes: string[];
    wrong: number;
    injected: number;
  };
}

test.skipIf(!hasStrace).each(["workers", "inline"])(
  "queue %s: reads that sometimes fail with EIO fail no waiter",
  async (queue) => {
    const { failed, wrong, injected } = await restore(queue, "pread64,preadv:error=EIO:when=2+3");
    expect([failed, wrong]).toEqual([0, 0]);
    expect(injected).toBeGreaterThan(0);
    console.log(`    ${injected} reads failed with EIO and were made again in smaller pieces`);
  },
);

test.skipIf(!hasStrace).each(["workers", "inline"])(
  "queue %s: 150 failing reads of each thread fail waiters, and retryLoad loads all pages",
  async (queue) => {
    const { failed, codes, wrong, injected } = await restore(
      queue,
      "pread64,preadv:error=EIO:when=2..151",
    );
    expect([codes, wrong]).toEqual([["EIO"], 0]);
    expect(failed).toBeGreaterThan(0);
    expect(injected).toBeGreaterThanOrEqual(150);
    console.log(
      `    ${injected} reads failed with EIO, ${failed} waiters told, every page right after ` +
        "trying again",
    );
  },
);

test.skipIf(!hasStrace)(
  "every other read is interrupted (EINTR), and no waiter fails",
  async () => {
    const { failed, wrong, injected } = await restore(
      "workers",
      "pread64,preadv:error=EINTR:when=1+2",
    );
    expect([failed, wrong]).toEqual([0, 0]);
    expect(injected).toBeGreaterThan(0);
  },
);

test.skipIf(!hasStrace)(
  "saveTo with EIO fails, keeps the previous checkpoint, and leaves no temporary file",
  async () => {
    for (const rule of [
      `${WRITE}:error=EIO:when=1`,
      "fsync:error=EIO:when=1",
      `${RENAME}:error=EIO:when=1`,
    ]) {
      const directory = join(root, "write");
      cpSync(checkpoint, directory, { recursive: true });
      const before = listing(directory);
      const { stdout, injected } = await trace(
        [rule],
        undefined,
        "save-program.ts",
        directory,
        "600",
        "2",
      );
      expect(`${rule} ${stdout}`).toBe(`${rule} SyscallError EIO\n`);
      // Once in each thread: two may sync at once.
      expect(injected).toBeGreaterThanOrEqual(1);
      expect(listing(directory)).toEqual(before);
      expect(await checkStamped(directory, PAGES)).toBe(1);
      rmSync(directory, { recursive: true });
    }
  },
);

test.skipIf(!hasStrace)(
  "saveTo killed at each call that changes a directory leaves one checkpoint or the other",
  async () => {
    let kills = 0;
    for (const call of ["fsync", RENAME, WRITE]) {
      for (let when = 1; ; when++) {
        const directory = join(root, "kill");
        cpSync(checkpoint, directory, { recursive: true });
        const rule = `${call}:signal=KILL:when=${when}`;
        const { signal, stdout } = await trace(
          [rule],
          undefined,
          "save-program.ts",
          directory,
          String(PAGES),
          "2",
        );
        const version = await checkStamped(directory, PAGES);
        rmSync(directory, { recursive: true });
        expect([1, 2]).toContain(version);
        if (stdout === "saved\n") break;
        expect(signal === null ? "exited" : "killed").toBe("killed");
        kills++;
      }
    }
    console.log(`    killed at ${kills} calls, each time a complete checkpoint`);
    expect(kills).toBeGreaterThan(6);
  },
);
