/** Saves to S3: published at once or not at all. */
import { afterAll, afterEach, beforeEach, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import {
  CheckpointConflictError,
  MemoryFile,
  PAGE_SIZE,
  UnsupportedError,
} from "../../src/index.ts";
import { openPlace } from "../../src/remote/place.ts";
import { openRemoteCheckpoint } from "../../src/remote/open-checkpoint.ts";
import { forgetPreflights } from "../../src/remote/preflight.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { pattern } from "../aio/support/memory.ts";
import { S3Server } from "../http/support/s3-server.ts";
import { asDirectory, filledFile, namesIn, PLACE, s3Of } from "./support/store.ts";

let server: S3Server;
beforeEach(async () => {
  forgetPreflights();
  server = await S3Server.start();
});
afterEach(() => server[Symbol.asyncDispose]());
afterAll(() => terminateIdleThreads());

async function expectContents(pages: number, seed: number): Promise<void> {
  const directory = asDirectory(server);
  using file = await MemoryFile.loadFrom(directory);
  const contents = file.view({ start: 0, end: pages * PAGE_SIZE });
  expect(Buffer.compare(contents, pattern(pages * PAGE_SIZE, seed))).toBe(0);
  rmSync(directory, { recursive: true });
}

for (const pages of [1, 512, 20_000]) {
  test(`saveTo publishes ${pages} pages as a page file and a manifest`, async () => {
    using file = filledFile(pages);
    const report = await file.saveTo(PLACE, { s3: s3Of(server), compression: "none" });
    expect(report.directory).toBe(PLACE);
    expect(namesIn(server)).toEqual([
      "manifest/999999999999998",
      expect.stringMatching(/^pages-[0-9a-f]{16}$/),
    ]);
    await expectContents(pages, 1);
  });
}

test("saveTo compresses with zstd by default", async () => {
  using file = MemoryFile.create();
  file.view(file.allocate(2 ** 22)).fill(7);
  const report = await file.saveTo(PLACE, { s3: s3Of(server) });
  expect(report.compression.codec).toBe("zstd");
  expect(report.writtenBytes).toBeLessThan(2 ** 16);
});

test("saveTo gives later manifests keys that sort before earlier ones", async () => {
  using file = filledFile(10);
  for (let i = 0; i < 3; i++) {
    file.view({ start: 0, end: PAGE_SIZE })[0] = i;
    await file.saveTo(PLACE, { s3: s3Of(server) });
  }
  expect(namesIn(server).slice(0, 3)).toEqual(
    [6, 7, 8].map((digit) => `manifest/99999999999999${digit}`),
  );
});

test("saveTo sends only changed pages, and shares page files", async () => {
  using file = filledFile(2000);
  await file.saveTo(PLACE, { s3: s3Of(server), compression: "none" });
  file.view({ start: 5 * PAGE_SIZE, end: 6 * PAGE_SIZE }).fill(1);
  const report = await file.saveTo(PLACE, {
    s3: s3Of(server),
    compression: "none",
    incremental: true,
  });
  expect(report.writtenBytes).toBe(PAGE_SIZE);
  expect(report.pageFiles).toBe(2);
  const place = await openPlace(PLACE, { s3: s3Of(server) });
  const { contents, manifest } = await openRemoteCheckpoint(place);
  expect(contents.length).toBe(3);
  expect(manifest.pageFiles.length).toBe(2);
});

test("saveTo sends nothing if the newest checkpoint shows the instant already", async () => {
  using file = filledFile(2000);
  const first = await file.saveTo(PLACE, { s3: s3Of(server) });
  const before = server.seen.length;
  const again = await file.saveTo(PLACE, { s3: s3Of(server) });
  expect(again).toMatchObject({ isUnchanged: true, id: first.id });
  const methods = new Set(server.seen.slice(before).map(({ method }) => method));
  expect([...methods]).toEqual(["GET"]);
});

test("saveTo fetches no page columns that the thread has sent itself", async () => {
  // 12 bytes of columns for each page, which is more than a first request fetches.
  const pages = 2 ** 16;
  using file = filledFile(pages);
  const save = () => file.saveTo(PLACE, { s3: s3Of(server), compression: "none" });
  const { metaBytes } = await save();
  const before = server.sentBytes;
  file.view({ start: 0, end: PAGE_SIZE })[0] = 7;
  expect(await save()).toMatchObject({ writtenBytes: PAGE_SIZE, isUnchanged: false });
  expect(server.sentBytes - before).toBeLessThan(metaBytes);
  const directory = asDirectory(server);
  using back = await MemoryFile.loadFrom(directory);
  const all = { start: 0, end: pages * PAGE_SIZE };
  expect(Buffer.compare(back.view(all), file.view(all))).toBe(0);
  rmSync(directory, { recursive: true });
});

test("saveTo shows one instant while the program writes", async () => {
  using file = filledFile(20_000);
  const counters = file.view({ start: 0, end: 20_000 * PAGE_SIZE }, Uint32Array);
  let count = 0;
  // Each turn writes the same number to pages far apart.
  const write = () => {
    count++;
    for (let page = 0; page < 20_000; page += 400) counters[page * 1024] = count;
  };
  write();
  const timer = setInterval(write, 1);
  server.misbehave({ path: /pages-/, fault: { delayMs: 20 } });
  await file.saveTo(PLACE, { s3: s3Of(server), compression: "none" });
  clearInterval(timer);
  server.misbehave();
  using copy = await MemoryFile.loadFrom(PLACE, { s3: s3Of(server) });
  const saved = copy.view({ start: 0, end: 20_000 * PAGE_SIZE }, Uint32Array);
  for (let page = 0; page < 20_000; page += 400) expect(saved[page * 1024]).toBe(saved[0]!);
  expect(saved[0]).toBeLessThanOrEqual(count);
});

test("saveTo of two writers succeeds once, and both can save again", async () => {
  using one = filledFile(10, 1);
  using other = filledFile(10, 2);
  const options = { s3: s3Of(server), compression: "none", incremental: false } as const;
  const results = await Promise.allSettled([
    one.saveTo(PLACE, options),
    other.saveTo(PLACE, options),
  ]);
  const failed = results.filter((result) => result.status === "rejected");
  expect(failed.length).toBe(1);
  expect(failed[0]!.reason).toBeInstanceOf(CheckpointConflictError);
  expect(failed[0]!.reason.code).toBe("ERR_CHECKPOINT_CONFLICT");
  expect(namesIn(server).length).toBe(2);
  // The one that failed does not know the place yet, so it may replace the other's checkpoint.
  const isOneFirst = results[0]!.status === "fulfilled";
  await (isOneFirst ? one : other).saveTo(PLACE, options);
  await (isOneFirst ? other : one).saveTo(PLACE, options);
  expect(namesIn(server).length).toBe(6);
  await expectContents(10, isOneFirst ? 2 : 1);
});

test("saveTo succeeds if it published without an answer", async () => {
  using file = filledFile(10);
  server.misbehave({ method: "PUT", path: /manifest/, times: 1, fault: { losesAnswer: true } });
  await file.saveTo(PLACE, { s3: s3Of(server), compression: "none" });
  expect(namesIn(server).length).toBe(2);
  await expectContents(10, 1);
});

test("saveTo keeps its page file if it may have published", async () => {
  using file = filledFile(10);
  const fault = { status: 403, s3Code: "AccessDenied" };
  server.misbehave({ method: "PUT", path: /manifest/, fault });
  await expect(file.saveTo(PLACE, { s3: s3Of(server) })).rejects.toThrow("AccessDenied");
  expect(namesIn(server)).toEqual([expect.stringMatching(/^pages-/)]);
});

test("saveTo that fails before it publishes leaves nothing", async () => {
  using file = filledFile(5000);
  const fault = { status: 403, s3Code: "AccessDenied" };
  server.misbehave({ method: "PUT", path: /pages-/, skip: 1, fault });
  const saving = file.saveTo(PLACE, { s3: s3Of(server), compression: "none" });
  await expect(saving).rejects.toThrow("AccessDenied");
  expect(namesIn(server)).toEqual([]);
  expect(server.uploads.size).toBe(0);
});

test("saveTo that is aborted ends its requests and leaves nothing", async () => {
  using file = filledFile(20_000);
  const abort = new AbortController();
  server.misbehave({ method: "PUT", path: /pages-/, skip: 2, fault: { delayMs: 3000 } });
  const saving = file.saveTo(PLACE, {
    s3: s3Of(server),
    compression: "none",
    signal: abort.signal,
  });
  setTimeout(() => abort.abort(new Error("the program's reason")), 300);
  await expect(saving).rejects.toThrow("the program's reason");
  expect(namesIn(server).filter((name) => name.startsWith("manifest"))).toEqual([]);
});

test("saveTo refuses a store that ignores conditions, and places over HTTP", async () => {
  using file = filledFile(1);
  server.ignoresConditions = true;
  await expect(file.saveTo(PLACE, { s3: s3Of(server) })).rejects.toThrow(UnsupportedError);
  await expect(file.saveTo("https://host/path")).rejects.toThrow("read-only");
  expect(namesIn(server)).toEqual([]);
});
