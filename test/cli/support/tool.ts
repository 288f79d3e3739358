/** The command line tool as a process, and a sample checkpoint to run it on. */
import { afterAll, beforeAll } from "bun:test";
import { closeSync, cpSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import packageJson from "../../../package.json" with { type: "json" };
import { HUGE_PAGE_SIZE, MemoryFile, MemoryKind, PAGE_SIZE } from "../../../src/index.ts";

export const program = join(import.meta.dir, "../../..", packageJson.bin.pgalloc);
export const fixtures = join(import.meta.dir, "../../data/gvisor");

export let root: string;
export let checkpoint: string;

export function run(...args: string[]): { exitCode: number; stdout: string; stderr: string } {
  const child = Bun.spawnSync([process.execPath, program, ...args], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  return {
    exitCode: child.exitCode,
    stdout: child.stdout.toString(),
    stderr: child.stderr.toString(),
  };
}

/** A copy of the checkpoint, to damage. */
export function copy(name: string): string {
  const directory = join(root, name);
  cpSync(checkpoint, directory, { recursive: true });
  return directory;
}

/** Changes a byte to another value. Some bytes, such as those of a checkpoint's id, are random. */
export function overwrite(path: string, offset: number): void {
  const fd = openSync(path, "r+");
  const byte = new Uint8Array(1);
  readSync(fd, byte, 0, 1, offset);
  byte[0]! ^= 0xff;
  writeSync(fd, byte, 0, 1, offset);
  closeSync(fd);
}

/** Registers the hooks of the calling test file. */
export function useSample(): void {
  beforeAll(async () => {
    root = mkdtempSync(join(tmpdir(), "pgalloc-cli-"));
    checkpoint = join(root, "checkpoint");
    using file = MemoryFile.create({ expectHugepages: true });
    const table = file.allocate(10 * PAGE_SIZE, { kind: MemoryKind.Tmpfs, group: 3 });
    file.view(table).fill(1);
    const sparse = file.allocate(20 * PAGE_SIZE, { kind: 17 });
    for (const page of [0, 1, 5]) file.view(sparse)[page * PAGE_SIZE] = 2;
    file.incRef({ start: sparse.start, end: sparse.start + PAGE_SIZE });
    const huge = file.allocate(HUGE_PAGE_SIZE, { huge: true });
    file.view(huge)[0] = 3;
    file.decRef({ start: huge.end - PAGE_SIZE, end: huge.end });
    await file.saveTo(checkpoint, { userData: new Uint8Array(345) });
  });
  afterAll(() => rmSync(root, { recursive: true }));
}
