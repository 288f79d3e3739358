/** Refresh: a reader becomes the newer checkpoint of its place, and loads what changed. */
import { afterAll, afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { MemoryFile, NoCheckpointError, PAGE_SIZE, UnsupportedError } from "../../src/index.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { pattern } from "../aio/support/memory.ts";
import { S3Server } from "../http/support/s3-server.ts";
import { filledFile, PLACE, s3Of } from "./support/store.ts";

const PAGES = 3000;
let server: S3Server;
let root: string;

beforeEach(async () => {
  server = await S3Server.start();
  root = mkdtempSync(join(tmpdir(), "pgalloc-refresh-"));
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(root, { recursive: true });
});
afterAll(() => terminateIdleThreads());

const options = () => ({ s3: s3Of(server) });
const saving = () => ({ ...options(), compression: "none", incremental: true }) as const;

/** Bytes of page files that the server has sent since `forget`. */
function sentBytes(): number {
  return server.seen
    .filter(({ url }) => url.includes("pages-"))
    .reduce((sum, { headers }) => {
      const [, start, end] = /bytes=(\d+)-(\d+)/.exec(headers["range"] ?? "")!;
      return sum + Number(end) - Number(start) + 1;
    }, 0);
}

test("refresh loads the pages that changed in the newer checkpoint", async () => {
  using writer = filledFile(PAGES);
  await writer.saveTo(PLACE, { ...saving(), userData: Buffer.from("one") });
  using reader = await MemoryFile.loadFrom(PLACE, options());
  const before = reader.view({ start: 0, end: PAGE_SIZE });
  expect(await reader.refresh()).toBe(false);
  expect(before.length).toBe(PAGE_SIZE);

  writer.view({ start: 7 * PAGE_SIZE, end: 9 * PAGE_SIZE }).fill(5);
  const more = writer.allocate(3 * PAGE_SIZE);
  writer.view(more).fill(6);
  writer.decRef({ start: 100 * PAGE_SIZE, end: 200 * PAGE_SIZE });
  await writer.saveTo(PLACE, { ...saving(), userData: Buffer.from("two") });

  server.seen.length = 0;
  expect(await reader.refresh()).toBe(true);
  expect(Buffer.from(reader.userData!).toString()).toBe("two");
  expect(before.length).toBe(0);
  const expected = pattern(PAGES * PAGE_SIZE);
  expected.fill(5, 7 * PAGE_SIZE, 9 * PAGE_SIZE);
  for (const [start, end] of [
    [0, 100],
    [200, PAGES],
  ] as const) {
    const contents = reader.view({ start: start * PAGE_SIZE, end: end * PAGE_SIZE });
    const wanted = expected.subarray(start * PAGE_SIZE, end * PAGE_SIZE);
    expect(Buffer.compare(contents, wanted)).toBe(0);
  }
  expect(reader.view(more).every((byte) => byte === 6)).toBe(true);
  expect(reader.toString()).toBe(writer.toString());
  // Two trailers, and five changed pages.
  expect(sentBytes()).toBe(7 * PAGE_SIZE);
  expect(reader.loadStats()).toMatchObject({ totalBytes: 5 * PAGE_SIZE, isLoading: false });
});

test("refresh works from checkpoint to checkpoint, in a directory, too", async () => {
  const directory = join(root, "checkpoint");
  using writer = filledFile(100);
  let { id } = await writer.saveTo(directory, { incremental: true });
  using reader = await MemoryFile.loadFrom(directory);
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(99), fc.nat(255)), { maxLength: 10 }),
      fc.constantFrom("none", "zstd"),
      async (writes, compression) => {
        for (const [page, byte] of writes)
          writer.view({ start: page * PAGE_SIZE, end: (page + 1) * PAGE_SIZE }).fill(byte);
        const report = await writer.saveTo(directory, {
          incremental: true,
          compression: compression as "none" | "zstd",
        });
        // A save of an instant that the checkpoint has already leaves it.
        expect(await reader.refresh()).toBe(report.id !== id);
        ({ id } = report);
        const all = { start: 0, end: 100 * PAGE_SIZE };
        expect(Buffer.compare(reader.view(all), writer.view(all))).toBe(0);
      },
    ),
    { numRuns: 20 },
  );
});

test("refresh without a newer checkpoint makes one request", async () => {
  using writer = filledFile(8);
  await writer.saveTo(PLACE, saving());
  using reader = await MemoryFile.loadFrom(PLACE, options());
  for (let round = 0; round < 2; round++) {
    server.seen.length = 0;
    expect(await reader.refresh()).toBe(false);
    expect(server.seen.map(({ method }) => method)).toEqual(["GET"]);
    writer.view({ start: 0, end: PAGE_SIZE }).fill(round);
    await writer.saveTo(PLACE, saving());
    expect(await reader.refresh()).toBe(true);
  }
});

for (const cached of [false, true]) {
  test(`refresh over HTTP makes one request, and misses a checkpoint (${cached})`, async () => {
    const directory = join(root, "served");
    using writer = filledFile(8);
    await writer.saveTo(directory);
    const seen: string[] = [];
    await using http = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch(request) {
        seen.push(request.url);
        return serveRange(directory, request);
      },
    });
    const cache = cached ? { cache: join(root, "cache") } : {};
    using reader = await MemoryFile.loadFrom(http.url.href, cache);
    seen.length = 0;
    expect(await reader.refresh()).toBe(false);
    expect(seen).toEqual([`${http.url.href}meta`]);
    writer.view({ start: 0, end: PAGE_SIZE }).fill(1);
    await writer.saveTo(directory);
    expect(await reader.refresh()).toBe(true);
    expect(reader.view({ start: 0, end: PAGE_SIZE }).every((byte) => byte === 1)).toBe(true);
    rmSync(join(directory, "meta"));
    await expect(reader.refresh()).rejects.toThrow(NoCheckpointError);
  });
}

/** A web server's answer to a GET of a range of a file. */
function serveRange(directory: string, request: Request): Response {
  const path = join(directory, new URL(request.url).pathname);
  const [, start, end] = /bytes=(\d+)-(\d+)/.exec(request.headers.get("range") ?? "") ?? [];
  if (!existsSync(path) || end === undefined) return new Response("", { status: 404 });
  const { size, ino } = statSync(path);
  const last = Math.min(size - 1, Number(end));
  const headers = { etag: `"${ino}"`, "content-range": `bytes ${start}-${last}/${size}` };
  return new Response(Bun.file(path).slice(Number(start), last + 1), { status: 206, headers });
}

test("refresh that fails leaves the file as it was", async () => {
  using writer = filledFile(PAGES);
  await writer.saveTo(PLACE, saving());
  using reader = await MemoryFile.loadFrom(PLACE, options());
  writer.view({ start: 0, end: PAGE_SIZE }).fill(1);
  await writer.saveTo(PLACE, saving());
  server.misbehave({ path: /pages-/, skip: 2, fault: { status: 403 } });
  await expect(reader.refresh()).rejects.toThrow("403");
  const contents = reader.view({ start: 0, end: PAGES * PAGE_SIZE });
  expect(Buffer.compare(contents, pattern(PAGES * PAGE_SIZE))).toBe(0);
  server.misbehave();
  expect(await reader.refresh()).toBe(true);
  expect(reader.view({ start: 0, end: PAGE_SIZE })[0]).toBe(1);
});

test("refresh fills the cache, and ends with destroy", async () => {
  const cache = join(root, "cache");
  using writer = filledFile(PAGES);
  await writer.saveTo(PLACE, saving());
  using reader = await MemoryFile.loadFrom(PLACE, { ...options(), cache });
  writer.view({ start: 0, end: PAGE_SIZE }).fill(1);
  await writer.saveTo(PLACE, saving());
  expect(await reader.refresh()).toBe(true);
  using offline = await MemoryFile.loadFrom(PLACE, {
    ...options(),
    cache: { directory: cache, offline: true },
  });
  const all = { start: 0, end: PAGES * PAGE_SIZE };
  expect(Buffer.compare(offline.view(all), writer.view(all))).toBe(0);
  await writer.saveTo(PLACE, { ...saving(), incremental: false });
  const refreshing = reader.refresh();
  reader.destroy();
  await expect(refreshing).rejects.toThrow();
});

test("refresh twice at once is one refresh", async () => {
  using writer = filledFile(10);
  await writer.saveTo(PLACE, saving());
  using reader = await MemoryFile.loadFrom(PLACE, options());
  writer.view({ start: 0, end: PAGE_SIZE }).fill(1);
  await writer.saveTo(PLACE, saving());
  expect(await Promise.all([reader.refresh(), reader.refresh()])).toEqual([true, true]);
  expect(await reader.refresh()).toBe(false);
});

test("refresh refuses a file that loadFrom did not restore", async () => {
  using file = MemoryFile.create();
  await expect(file.refresh()).rejects.toThrow(UnsupportedError);
});
