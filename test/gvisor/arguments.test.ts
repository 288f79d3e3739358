/** What an export or import refuses before it changes anything. */
import { afterAll, afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cutName } from "../../src/core/check-options.ts";
import { exportAll, exportTo, importAll, importFrom } from "../../src/gvisor/index.ts";
import { encodeOwners, readOwners } from "../../src/gvisor/owners.ts";
import { memorySource } from "../../src/gvisor/stream.ts";
import {
  CorruptCheckpointError,
  MemoryFile,
  NotCheckpointError,
  PAGE_SIZE,
} from "../../src/index.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";

let directory: string;
let file: MemoryFile;

beforeEach(() => {
  directory = join(mkdtempSync(join(tmpdir(), "pgalloc-arguments-")), "export");
  file = MemoryFile.create();
  file.view(file.allocate(PAGE_SIZE)).fill(1);
});
afterEach(() => {
  file.destroy();
  rmSync(join(directory, ".."), { recursive: true });
});
afterAll(() => terminateIdleThreads());

test.each(["a\0b", "c1:a\0b", "\ud800"])("exportAll refuses the id %j", async (id) => {
  await expect(exportAll(directory, { [id]: file })).rejects.toThrow("without NUL");
  expect(existsSync(directory)).toBe(false);
});

test("exportAll refuses more ids than an import reads", async () => {
  const id = "x".repeat(2 ** 24);
  await expect(exportAll(directory, { [id]: file })).rejects.toThrow(RangeError);
  expect(existsSync(directory)).toBe(false);
});

test("importAll reads ids that are longer than the name of a file may be", async () => {
  const id = "é".repeat(200_000);
  await exportAll(directory, { [id]: file });
  using files = await importAll(directory);
  expect([...files.keys()]).toEqual(["", id]);
  expect(files.get(id)?.name).toBe("é".repeat(124));
  expect(cutName("\ufeffa")).toBe("\ufeffa");
});

test("readOwners refuses an id with a NUL character", () => {
  const bytes = encodeOwners([{ containerName: "", path: "a\0b" }]);
  expect(() => readOwners(memorySource(bytes), 0)).toThrow(CorruptCheckpointError);
});

test("exportTo and importFrom refuse URLs", async () => {
  const message = `Expected a directory: gVisor's format has no remote places, got "s3://a/b"`;
  await expect(exportTo(file, "s3://a/b")).rejects.toThrow(message);
  await expect(importFrom("s3://a/b")).rejects.toThrow(message);
  expect(existsSync("s3:")).toBe(false);
});

test("exportTo never replaces a file that is not of a gVisor checkpoint", async () => {
  mkdirSync(directory);
  const path = join(directory, "pages_meta.img");
  for (const text of ["notes of mine", "short"]) {
    writeFileSync(path, text);
    await expect(exportTo(file, directory)).rejects.toThrow(NotCheckpointError);
    expect(readFileSync(path, "utf8")).toBe(text);
  }
  // A checkpoint that was cut off is replaced.
  rmSync(path);
  await exportTo(file, directory);
  for (const bytes of [readFileSync(path).subarray(0, 20), Buffer.alloc(0)]) {
    writeFileSync(path, bytes);
    await exportTo(file, directory);
  }
  (await importFrom(directory)).destroy();
});

test("exportTo names what is no MemoryFile", async () => {
  const swapped = exportTo as unknown as (...given: unknown[]) => Promise<unknown>;
  const message = "Expected file to be a MemoryFile, got";
  await expect(swapped(directory, file)).rejects.toThrow(`${message} "${directory}" (a string)`);
  await expect(swapped(undefined, directory)).rejects.toThrow(`${message} undefined`);
  await expect(exportAll(directory, { a: 5 as never })).rejects.toThrow(`${message} 5`);
});

test("importFrom checks the options of a mapped restore", async () => {
  await exportTo(file, directory);
  const mapped = "yes" as unknown as boolean;
  await expect(importFrom(directory, { mapped })).rejects.toThrow(
    "Expected mapped to be a boolean",
  );
  const path = join(directory, "memory");
  await expect(importFrom(directory, { mapped: true, path })).rejects.toThrow("leave out");
});
