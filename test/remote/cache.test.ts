/** Caches of remote checkpoints: whole or not there, and one request for the next start. */
import { afterAll, afterEach, beforeEach, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  MemoryFile,
  NoCheckpointError,
  NotCheckpointError,
  PAGE_SIZE,
  SyscallError,
} from "../../src/index.ts";
import { errnoNumber, setFaultHook } from "../../ffi/index.ts";
import { DirectoryLock } from "../../src/checkpoint/directory-lock.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { pattern } from "../aio/support/memory.ts";
import { S3Server } from "../http/support/s3-server.ts";
import { filledFile, PLACE, s3Of } from "./support/store.ts";

const PAGES = 3000;
let server: S3Server;
let root: string;
let cache: string;

beforeEach(async () => {
  server = await S3Server.start();
  root = mkdtempSync(join(tmpdir(), "pgalloc-cache-"));
  cache = join(root, "cache");
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(root, { recursive: true });
});
afterAll(() => terminateIdleThreads());

async function save(seed = 1, compression: "none" | "zstd" = "none"): Promise<void> {
  using file = filledFile(PAGES, seed);
  await file.saveTo(PLACE, { s3: s3Of(server), compression });
}

function expectContents(file: MemoryFile, seed = 1): void {
  const contents = file.view({ start: 0, end: PAGES * PAGE_SIZE });
  expect(Buffer.compare(contents, pattern(PAGES * PAGE_SIZE, seed))).toBe(0);
}

const load = (options: object = {}) =>
  MemoryFile.loadFrom(PLACE, { s3: s3Of(server), cache, ...options });

for (const compression of ["none", "zstd"] as const) {
  test(`${compression}: a load fills the cache, and the next one takes one request`, async () => {
    await save(1, compression);
    using first = await load();
    expectContents(first);
    expect(readdirSync(cache).sort()).toEqual([
      "meta",
      "origin",
      expect.stringMatching(/^pages-[0-9a-f]{16}$/),
    ]);
    server.seen.length = 0;
    using second = await load();
    expectContents(second);
    expect(server.seen.length).toBe(1);
    // It is a checkpoint like any other.
    using local = await MemoryFile.loadFrom(cache);
    expectContents(local);
  });
}

test("awaitLoad of the whole file includes the cache", async () => {
  await save();
  using file = await load({ background: true });
  await file.awaitLoad();
  expect(existsSync(join(cache, "origin"))).toBe(true);
});

test("a newer checkpoint replaces the cache", async () => {
  await save(1);
  (await load()).destroy();
  const before = readdirSync(cache);
  await save(2);
  using file = await load();
  expectContents(file, 2);
  expect(readdirSync(cache).length).toBe(3);
  expect(readdirSync(cache)).not.toEqual(before);
  using offline = await load({ cache: { directory: cache, offline: true } });
  expectContents(offline, 2);
});

test("a store that begins anew replaces the cache", async () => {
  await save(1);
  (await load()).destroy();
  // Its next checkpoint has the sequence of the one that the cache holds.
  server.objects.clear();
  await save(2);
  using file = await load();
  expectContents(file, 2);
});

test("offline makes no request, and names a cache without a checkpoint", async () => {
  await save();
  const offline = { cache: { directory: cache, offline: true } };
  await expect(load(offline)).rejects.toThrow(NoCheckpointError);
  (await load()).destroy();
  server.seen.length = 0;
  using file = await load(offline);
  expectContents(file);
  expect(server.seen.length).toBe(0);
  const other = MemoryFile.loadFrom("s3://bucket/other", { s3: s3Of(server), ...offline });
  await expect(other).rejects.toThrow(NoCheckpointError);
});

test("pages that the program freed before they were loaded are in the cache", async () => {
  await save();
  server.misbehave({ path: /pages-/, skip: 1, fault: { delayMs: 200 } });
  using file = await load({ background: true });
  file.decRef({ start: 1000 * PAGE_SIZE, end: 2900 * PAGE_SIZE });
  await file.awaitLoad();
  using again = await MemoryFile.loadFrom(cache);
  expectContents(again);
});

test("a load that ends early leaves no checkpoint in the cache, and frees it", async () => {
  await save();
  server.misbehave({ path: /pages-/, skip: 3, fault: { stallAfterBytes: 100 } });
  const file = await load({ background: true });
  await Bun.sleep(100);
  file.destroy();
  await Bun.sleep(300);
  expect(readdirSync(cache)).toEqual([]);
  server.misbehave();
  using again = await load();
  expectContents(again);
  expect(readdirSync(cache).length).toBe(3);
});

test("a damaged page keeps the cache from appearing", async () => {
  await save();
  server.misbehave({ path: /pages-/, skip: 2, fault: { flipsByte: true } });
  await expect(load()).rejects.toThrow("Checksum does not match");
  await Bun.sleep(100);
  expect(existsSync(join(cache, "meta"))).toBe(false);
});

test("contents that were damaged on their way are whole in the cache", async () => {
  await save();
  server.misbehave({ path: /pages-/, skip: 2, times: 2, fault: { flipsByte: true } });
  using file = await load();
  expect(file.loadStats().refetchedBytes).toBeGreaterThan(0);
  expectContents(file);
  server.misbehave({ path: /pages-/, fault: { status: 404 } });
  using again = await load();
  expectContents(again);
});

test("two loads at once fill the cache once", async () => {
  await save();
  const [one, other] = await Promise.all([load(), load()]);
  expectContents(one);
  expectContents(other);
  expect(readdirSync(cache).length).toBe(3);
  one.destroy();
  other.destroy();
});

/** GETs of contents since the last call. */
const reads = () =>
  server.seen.splice(0).filter(({ method, url }) => method === "GET" && url.includes("pages-"));

test("a load waits for another one that fills its cache, and reads nothing", async () => {
  await save();
  server.seen.length = 0;
  (await load({ cache: join(root, "other") })).destroy();
  const once = reads().length;
  server.misbehave({ path: /pages-/, skip: 1, fault: { delayMs: 100 } });
  using first = await load({ background: true });
  using second = await load();
  expectContents(second);
  await first.awaitLoad();
  // It had opened the checkpoint, with the last page of its page file.
  expect(reads().length).toBe(once + 1);
});

test("a load fills the cache itself if the one that fills it ends", async () => {
  await save();
  server.misbehave({ path: /pages-/, skip: 1, fault: { delayMs: 100 } });
  const first = await load({ background: true });
  const second = load();
  first.destroy();
  using file = await second;
  expectContents(file);
  using local = await MemoryFile.loadFrom(cache);
  expectContents(local);
});

test("no load waits for one that writes nothing, nor in the background for any", async () => {
  await save();
  mkdirSync(cache);
  const lock = new DirectoryLock(cache);
  using inBackground = await load({ background: true });
  using waiting = await load();
  expectContents(waiting);
  await inBackground.awaitLoad();
  lock.close();
  expect(readdirSync(cache)).toEqual([]);
});

test("a checkpoint larger than maxBytes is loaded without the cache", async () => {
  await save();
  using file = await load({ cache: { directory: cache, maxBytes: 1000 } });
  expectContents(file);
  expect(existsSync(cache)).toBe(false);
});

test("a damaged cache is filled again", async () => {
  await save();
  (await load()).destroy();
  writeFileSync(join(cache, "meta"), "damaged");
  using file = await load();
  expectContents(file);
  writeFileSync(join(cache, "origin"), "{");
  using again = await load();
  expectContents(again);
  using local = await MemoryFile.loadFrom(cache);
  expectContents(local);
});

test("the cache of a web server's checkpoint takes one request, too", async () => {
  await save();
  const [manifest] = [...server.objects.keys()].filter((key) => key.includes("manifest/"));
  server.put("www/meta", server.objects.get(manifest!)!.bytes);
  for (const [key, { bytes }] of [...server.objects])
    if (key.includes("prefix/pages-")) server.put(key.replace("some/prefix", "www"), bytes);
  const url = `${server.endpoint}/bucket/www`;
  (await MemoryFile.loadFrom(url, { cache })).destroy();
  server.seen.length = 0;
  using file = await MemoryFile.loadFrom(url, { cache });
  expectContents(file);
  expect(server.seen.length).toBe(1);
});

test("loadFrom checks the cache option", async () => {
  await expect(load({ cache: "" })).rejects.toThrow(TypeError);
  await expect(load({ cache: { directory: cache, maxBytes: -1 } })).rejects.toThrow(RangeError);
});

test("a load never replaces a checkpoint that no load has cached", async () => {
  await save(1);
  using own = filledFile(PAGES, 7);
  await own.saveTo(cache);
  await expect(load()).rejects.toThrow(NotCheckpointError);
  using kept = await MemoryFile.loadFrom(cache);
  expectContents(kept, 7);
});

test("a load never replaces a file meta of another origin", async () => {
  await save(1);
  mkdirSync(cache);
  writeFileSync(join(cache, "meta"), "notes");
  await expect(load()).rejects.toThrow(`Cannot replace '${join(cache, "meta")}'`);
  expect(readFileSync(join(cache, "meta"), "utf8")).toBe("notes");
});

test("a save over a cache ends it, and is not replaced by a load", async () => {
  await save(1);
  using file = await load();
  await file.saveTo(cache, { userData: new Uint8Array([7]) });
  await save(2);
  await expect(load()).rejects.toThrow(NotCheckpointError);
  using kept = await MemoryFile.loadFrom(cache);
  expect(kept.userData).toEqual(new Uint8Array([7]));
});

test("a save keeps a file origin that is not a cache's", async () => {
  mkdirSync(cache);
  writeFileSync(join(cache, "origin"), "notes");
  using file = filledFile(1, 1);
  await file.saveTo(cache);
  expect(readFileSync(join(cache, "origin"), "utf8")).toBe("notes");
});

test("a fill that ended before its last rename is filled again", async () => {
  await save(1);
  (await load()).destroy();
  renameSync(join(cache, "origin"), join(cache, "origin.tmp"));
  await save(2);
  using file = await load();
  expectContents(file, 2);
  expect(existsSync(join(cache, "origin.tmp"))).toBe(false);
});

test.each<[unknown, string]>([
  [5, "Expected cache to be a directory, or { directory }, got 5"],
  ["s3://bucket/x", 'Expected cache to be a directory, got "s3://bucket/x" (a string)'],
  [{ directory: "x", maxBytes: "1" }, 'Expected cache.maxBytes to be a number, got "1" (a string)'],
  [{ directory: "x", offline: 1 }, "Expected cache.offline to be a boolean, got 1"],
])("cache: %p is refused", async (given, message) => {
  await expect(load({ cache: given })).rejects.toThrow(message);
});

test("a cache that is a file throws a SyscallError", async () => {
  await save();
  writeFileSync(cache, "");
  await expect(load()).rejects.toThrow(SyscallError);
});

test.each(["mkdir", "openat"])(
  "a load without room for its cache (%s) works and warns",
  async (name) => {
    await save();
    const warnings: unknown[] = [];
    const note = ({ code }: Error & { code?: string }) => warnings.push(code);
    process.on("warning", note);
    setFaultHook((call) => (call === name ? { errno: errnoNumber("ENOSPC") } : undefined));
    using file = await load().finally(() => setFaultHook(undefined));
    expectContents(file);
    await Bun.sleep(0);
    process.off("warning", note);
    expect(warnings).toContain("PGALLOC_CACHE_NOT_WRITTEN");
  },
);
