/**
 * Two files are replaced as one: exports that are killed or fail at each of their steps, and
 * readers in between. Files differ by length and bytes: n pages, filled with n.
 */
import { afterAll, expect, test } from "bun:test";
import { cpSync, existsSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFaultHook } from "../../ffi/index.ts";
import { exportTo, importFrom } from "../../src/gvisor/index.ts";
import { FileRange, MemoryFile, PAGE_SIZE, SyscallError } from "../../src/index.ts";

const scratch = mkdtempSync(join(tmpdir(), "pgalloc-atomic-"));
afterAll(() => {
  setFaultHook(undefined);
  rmSync(scratch, { recursive: true });
});

async function exportPages(directory: string, pages: number): Promise<void> {
  using file = MemoryFile.create();
  file.view(file.allocate(pages * PAGE_SIZE)).fill(pages);
  await exportTo(file, directory);
}

/** How many pages the export in the directory has; checks every byte. */
async function importPages(directory: string): Promise<number> {
  using file = await importFrom(directory);
  const pages = file.allocatedBytes / PAGE_SIZE;
  expect(file.view(new FileRange(0, file.allocatedBytes)).every((byte) => byte === pages)).toBe(
    true,
  );
  return pages;
}

/**
 * The files that gVisor sees, which knows only the two names: "nothing", or the number of pages;
 * never a mix.
 */
async function seenByGvisor(directory: string): Promise<number | "nothing"> {
  if (!existsSync(join(directory, "pages_meta.img"))) return "nothing";
  const copy = mkdtempSync(join(scratch, "seen-"));
  for (const name of ["pages_meta.img", "pages.img"])
    cpSync(join(directory, name), join(copy, name));
  return await importPages(copy);
}

test("exportTo killed at any step leaves the old export or the new one", async () => {
  const outcomes = new Set<string>();
  for (let killAt = 0; ; killAt++) {
    const directory = mkdtempSync(join(scratch, "killed-"));
    await exportPages(directory, 1);
    const child = Bun.spawnSync(
      [process.execPath, join(import.meta.dir, "support/killed-export.ts"), directory, `${killAt}`],
      {
        stderr: "pipe",
      },
    );
    const pages = await importPages(directory);
    const seen = await seenByGvisor(directory);
    outcomes.add(`${pages} ${seen}`);
    if (child.exitCode === 0) {
      expect([pages, seen]).toEqual([2, 2]);
      expect(killAt).toBeGreaterThanOrEqual(5);
      break;
    }
    expect(child.signalCode).toBe("SIGKILL");
    await exportPages(directory, 3);
    expect(readdirSync(directory).sort()).toEqual(["pages.img", "pages_meta.img"]);
    expect([await importPages(directory), await seenByGvisor(directory)]).toEqual([3, 3]);
  }
  // Before the commit, committed, between the two, done.
  expect([...outcomes].sort()).toEqual(["1 1", "2 1", "2 2", "2 nothing"]);
});

test("exportTo finishes a killed export step by step, each synced before the next", async () => {
  const directory = mkdtempSync(join(scratch, "finished-"));
  await exportPages(directory, 1);
  // Killed before it removes the old metadata: the new metadata has just been committed.
  Bun.spawnSync([
    process.execPath,
    join(import.meta.dir, "support/killed-export.ts"),
    directory,
    "2",
  ]);
  expect([await importPages(directory), await seenByGvisor(directory)]).toEqual([2, 1]);
  const steps: string[] = [];
  setFaultHook((syscall) => {
    if (["unlinkat", "renameat", "fsync"].includes(syscall)) steps.push(syscall);
    return undefined;
  });
  await exportPages(directory, 3);
  setFaultHook(undefined);
  expect(steps.slice(0, 5)).toEqual(["unlinkat", "fsync", "renameat", "fsync", "renameat"]);
  expect(await importPages(directory)).toBe(3);
});

test("exportTo reports a failing step, and leaves the old export or the new one", async () => {
  const outcomes = new Set<string>();
  for (let failAt = 0; ; failAt++) {
    const directory = mkdtempSync(join(scratch, "failed-"));
    await exportPages(directory, 1);
    let calls = 0;
    setFaultHook((syscall) =>
      ["openat", "renameat", "unlinkat"].includes(syscall) && calls++ === failAt
        ? { errno: 5 }
        : undefined,
    );
    const error = await exportPages(directory, 2).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    setFaultHook(undefined);
    const pages = await importPages(directory);
    const seen = await seenByGvisor(directory);
    if (seen !== "nothing") expect(seen).toBe(pages);
    if (error === undefined) {
      expect([pages, seen]).toEqual([2, 2]);
      break;
    }
    expect(error).toBeInstanceOf(SyscallError);
    outcomes.add(`${pages} ${seen}`);
    if (pages === 1) expect(readdirSync(directory).sort()).toEqual(["pages.img", "pages_meta.img"]);
    await exportPages(directory, 3);
    expect(readdirSync(directory).sort()).toEqual(["pages.img", "pages_meta.img"]);
  }
  expect([...outcomes].sort()).toEqual(["1 1", "2 nothing"]);
});

test("importFrom finds one export or another while others export", async () => {
  const directory = mkdtempSync(join(scratch, "busy-"));
  await exportPages(directory, 1);
  let exporting = true;
  const seen = new Set<number>();
  const write = async () => {
    for (let round = 0; round < 20; round++) await exportPages(directory, 1 + (round % 4));
    exporting = false;
  };
  const read = async () => {
    while (exporting) {
      seen.add(await importPages(directory));
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  await Promise.all([write(), read(), read()]);
  expect(seen.size).toBeGreaterThan(1);
});

test("exportTo replaces an inline checkpoint, and adds a pages file", async () => {
  const directory = mkdtempSync(join(scratch, "inline-"));
  cpSync(
    join(import.meta.dir, "../data/gvisor/inline/pages_meta.img"),
    join(directory, "pages_meta.img"),
  );
  await exportPages(directory, 2);
  expect(await importPages(directory)).toBe(2);
  expect(statSync(join(directory, "pages.img")).size).toBe(2 * PAGE_SIZE);
});
