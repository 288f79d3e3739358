/** Copies between directories, S3 and web servers. */
import { afterAll, afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryFile, NoCheckpointError, PAGE_SIZE } from "../../src/index.ts";
import { copyCheckpoint } from "../../src/remote/copy.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { pattern } from "../aio/support/memory.ts";
import { S3Server } from "../http/support/s3-server.ts";
import { filledFile, namesIn, PLACE, s3Of } from "./support/store.ts";

const PAGES = 9000;
const OTHER = "s3://bucket/other";
let server: S3Server;
let root: string;

beforeEach(async () => {
  server = await S3Server.start();
  root = mkdtempSync(join(tmpdir(), "pgalloc-copy-"));
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(root, { recursive: true });
});
afterAll(() => terminateIdleThreads());

const copy = (from: string, to: string) => copyCheckpoint(from, to, { s3: s3Of(server) });

/** Bytes of each file of a directory. */
function filesOf(directory: string): Record<string, Buffer> {
  const names = readdirSync(directory).sort();
  return Object.fromEntries(names.map((name) => [name, readFileSync(join(directory, name))]));
}

async function saveTo(where: string): Promise<void> {
  using file = filledFile(PAGES);
  await file.saveTo(where, { s3: s3Of(server), compression: "none" });
}

test("copy through S3 and a web server leaves a checkpoint as it was", async () => {
  const [first, second, third] = ["first", "second", "third"].map((name) => join(root, name));
  await saveTo(first!);
  const report = await copy(first!, PLACE);
  expect(report).toMatchObject({ pageFiles: 1, reusedPageFiles: 0 });
  expect(report.copiedBytes).toBe((PAGES + 1) * PAGE_SIZE);
  await copy(PLACE, second!);
  expect(Object.keys(filesOf(second!)).length).toBe(2);
  for (const [name, bytes] of Object.entries(filesOf(second!))) {
    expect(Buffer.compare(bytes, filesOf(first!)[name]!)).toBe(0);
    server.put(`www/${name}`, bytes);
  }
  await copy(`${server.endpoint}/bucket/www`, third!);
  using file = await MemoryFile.loadFrom(third!);
  const contents = file.view({ start: 0, end: PAGES * PAGE_SIZE });
  expect(Buffer.compare(contents, pattern(PAGES * PAGE_SIZE))).toBe(0);
});

test("copy to a place that has the checkpoint does nothing", async () => {
  await saveTo(PLACE);
  await copy(PLACE, OTHER);
  const names = namesIn(server, "other/");
  expect((await copy(PLACE, OTHER)).copiedBytes).toBe(0);
  expect(namesIn(server, "other/")).toEqual(names);
});

test("copy reuses the page files of the destination's checkpoint", async () => {
  using file = filledFile(2000);
  const options = { s3: s3Of(server), compression: "none", incremental: true } as const;
  await file.saveTo(PLACE, options);
  const directory = join(root, "copy");
  for (const to of [OTHER, directory]) await copy(PLACE, to);
  file.view({ start: 0, end: PAGE_SIZE }).fill(1);
  await file.saveTo(PLACE, options);
  for (const to of [OTHER, directory])
    expect(await copy(PLACE, to)).toMatchObject({
      pageFiles: 2,
      reusedPageFiles: 1,
      copiedBytes: 2 * PAGE_SIZE,
    });
  expect(namesIn(server, "other/").length).toBe(4);
  expect(readdirSync(directory).length).toBe(3);
});

test("copy that fails leaves the destination as it was", async () => {
  await saveTo(PLACE);
  const directory = join(root, "copy");
  server.misbehave({ method: "GET", path: /pages-/, skip: 3, fault: { status: 403 } });
  await expect(copy(PLACE, directory)).rejects.toThrow("403");
  expect(readdirSync(directory)).toEqual([]);
  server.misbehave();
  await copy(PLACE, directory);
  server.misbehave({ method: "PUT", path: /other\/pages-/, skip: 2, fault: { status: 403 } });
  await expect(copy(directory, OTHER)).rejects.toThrow("403");
  expect(namesIn(server, "other/").filter((name) => !name.startsWith("../"))).not.toContain(
    "manifest",
  );
  expect(server.uploads.size).toBe(0);
});

test("copy from a place without a checkpoint throws NoCheckpointError", async () => {
  await expect(copy(PLACE, join(root, "copy"))).rejects.toThrow(NoCheckpointError);
  await expect(copy(join(root, "none"), PLACE)).rejects.toThrow(NoCheckpointError);
});
