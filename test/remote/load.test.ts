/** Restores from S3 and from web servers, in the background and over servers that misbehave. */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  MemoryFile,
  NoCheckpointError,
  openSource,
  PAGE_SIZE,
  PageReadError,
  loadAll,
  saveAll,
} from "../../src/index.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { pattern } from "../aio/support/memory.ts";
import { S3Server } from "../http/support/s3-server.ts";
import { filledFile, PLACE, s3Of } from "./support/store.ts";

const PAGES = 4000;
let server: S3Server;

beforeEach(async () => {
  server = await S3Server.start();
});
afterEach(() => server[Symbol.asyncDispose]());
afterAll(() => terminateIdleThreads());

function expectContents(file: MemoryFile, pages = PAGES, seed = 1): void {
  const contents = file.view({ start: 0, end: pages * PAGE_SIZE });
  expect(Buffer.compare(contents, pattern(pages * PAGE_SIZE, seed))).toBe(0);
}

async function save(where = PLACE, compression: "none" | "zstd" = "none"): Promise<void> {
  using file = filledFile(PAGES);
  await file.saveTo(where, { s3: s3Of(server), compression, userData: Buffer.from("roots") });
}

/** The newest checkpoint as a directory of a web server. */
function publishOverHttp(): string {
  const [manifest] = [...server.objects.keys()].filter((key) => key.includes("manifest/")).sort();
  server.put("www/meta", server.objects.get(manifest!)!.bytes);
  for (const [key, { bytes }] of [...server.objects])
    if (key.includes("prefix/pages-")) server.put(key.replace("some/prefix", "www"), bytes);
  return `${server.endpoint}/bucket/www`;
}

for (const compression of ["none", "zstd"] as const) {
  describe(`compression ${compression}`, () => {
    test("loadFrom restores from S3", async () => {
      await save(PLACE, compression);
      using file = await MemoryFile.loadFrom(PLACE, { s3: s3Of(server) });
      expectContents(file);
      expect(Buffer.from(file.userData!).toString()).toBe("roots");
      expect(file.loadStats()).toMatchObject({ isLoading: false, failedBytes: 0 });
    });

    test("loadFrom restores from a web server", async () => {
      await save(PLACE, compression);
      using file = await MemoryFile.loadFrom(publishOverHttp());
      expectContents(file);
    });

    test("loadFrom restores from a server that sometimes fails", async () => {
      await save(PLACE, compression);
      server.misbehave(
        { path: /pages-/, skip: 2, times: 1, fault: { cutAfterBytes: 5000 } },
        { path: /pages-/, skip: 2, times: 2, fault: { status: 503, s3Code: "SlowDown" } },
        { path: /pages-/, skip: 1, times: 1, fault: { shiftBytes: 4096 } },
        { path: /pages-/, skip: 1, times: 1, fault: { flipsByte: true, losesAnswer: true } },
      );
      using file = await MemoryFile.loadFrom(PLACE, { s3: s3Of(server) });
      expectContents(file);
    });
  });
}

test("loadFrom in the background loads awaited ranges first", async () => {
  using made = MemoryFile.create();
  const range = made.allocate(2 ** 26);
  made.view(range).set(pattern(2 ** 26));
  await made.saveTo(PLACE, { s3: s3Of(server), compression: "none" });
  server.misbehave({ path: /pages-/, fault: { delayMs: 30 } });
  using file = await MemoryFile.loadFrom(PLACE, { s3: s3Of(server), background: true });
  expect(file.isLoading).toBe(true);
  const last = { start: 2 ** 26 - 8192, end: 2 ** 26 };
  await file.awaitLoad(last);
  expect(Buffer.compare(file.view(last), pattern(2 ** 26).subarray(-8192))).toBe(0);
  // What comes with it costs no time over a network: blocks of 128 KiB.
  expect(file.isLoaded({ start: 2 ** 26 - 2 ** 17, end: 2 ** 26 })).toBe(true);
  const { loadedBytes, demandBytes } = file.loadStats();
  expect(demandBytes).toBeGreaterThanOrEqual(8192);
  expect(loadedBytes).toBeLessThan(2 ** 26);
  await file.awaitLoad();
  expectContents(file, 2 ** 14);
});

/** Until the load has tried every page. */
async function loadEnded(file: MemoryFile): Promise<void> {
  while (file.isLoading) await Bun.sleep(5);
}

test("awaitLoad rejects for damaged pages, and retryLoad reads them again", async () => {
  await save();
  server.misbehave({ path: /pages-/, skip: 1, fault: { flipsByte: true } });
  using file = await MemoryFile.loadFrom(PLACE, { s3: s3Of(server), background: true });
  await expect(file.awaitLoad()).rejects.toThrow("Checksum does not match");
  await loadEnded(file);
  server.misbehave();
  await file.retryLoad();
  await file.awaitLoad();
  expectContents(file);
});

/** GETs of page files, and those that were ranges of contents. */
const pageReads = () => server.seen.filter(({ url }) => /pages-/.test(url)).length;

for (const compression of ["none", "zstd"] as const) {
  test(`loadFrom fetches again what was damaged on its way (${compression})`, async () => {
    await save(PLACE, compression);
    server.seen.length = 0;
    using whole = await MemoryFile.loadFrom(PLACE, { s3: s3Of(server) });
    const reads = pageReads();
    expect(whole.loadStats().refetchedBytes).toBe(0);
    // The first read is of the page file's last page. Two reads of one unit may be hit: the third
    // counts.
    server.misbehave({ path: /pages-/, skip: 1, times: 2, fault: { flipsByte: true } });
    server.seen.length = 0;
    using file = await MemoryFile.loadFrom(PLACE, { s3: s3Of(server) });
    expectContents(file);
    expect(pageReads()).toBe(reads + 2);
    const { refetchedBytes, failedBytes } = file.loadStats();
    expect(refetchedBytes).toBeGreaterThanOrEqual(2 * PAGE_SIZE);
    expect(failedBytes).toBe(0);
    expect(file.metrics().load.requests).toMatchObject({ refetchedBytes });
  });

  test(`awaitLoad rejects for pages that are damaged each time (${compression})`, async () => {
    await save(PLACE, compression);
    server.misbehave({ path: /pages-/, skip: 1, fault: { flipsByte: true } });
    using file = await MemoryFile.loadFrom(PLACE, { s3: s3Of(server), background: true });
    await expect(file.awaitLoad({ start: 0, end: PAGES * PAGE_SIZE })).rejects.toMatchObject({
      code: "ERR_CORRUPT_CHECKPOINT",
      message: expect.stringContaining("fetched 3 times"),
    });
    await loadEnded(file);
    expect(file.loadStats().failedBytes).toBeGreaterThan(0);
  });
}

test("loadFrom fetches damaged checksums again", async () => {
  await save();
  // The column is read beside other first requests, and then in blocks.
  server.misbehave({ path: /manifest\/\d/, skip: 1, times: 2, fault: { flipsByte: true } });
  using file = await MemoryFile.loadFrom(PLACE, { s3: s3Of(server) });
  expectContents(file);
});

test("awaitLoad rejects while the store is away, and retryLoad continues afterwards", async () => {
  await save();
  server.misbehave({ path: /pages-/, skip: 2, fault: { status: 404 } });
  using file = await MemoryFile.loadFrom(PLACE, { s3: s3Of(server), background: true });
  await expect(file.awaitLoad()).rejects.toThrow(PageReadError);
  await loadEnded(file);
  server.misbehave();
  await file.retryLoad();
  await file.awaitLoad();
  expectContents(file);
});

test("destroy ends the requests of a load at once", async () => {
  await save();
  server.misbehave({ path: /pages-/, skip: 1, fault: { stallAfterBytes: 100 } });
  const file = await MemoryFile.loadFrom(PLACE, { s3: s3Of(server), background: true });
  await Bun.sleep(50);
  file.destroy();
  await Bun.sleep(300);
  const { length } = server.seen;
  await Bun.sleep(300);
  expect(server.seen.length).toBe(length);
});

test("signal ends a load, its requests and its waiters", async () => {
  await save();
  server.misbehave({ path: /pages-/, skip: 1, fault: { stallAfterBytes: 100 } });
  const abort = new AbortController();
  setTimeout(() => abort.abort(new Error("the program's reason")), 100);
  const loading = MemoryFile.loadFrom(PLACE, { s3: s3Of(server), signal: abort.signal });
  await expect(loading).rejects.toThrow("the program's reason");
});

test("saveTo saves a restored file incrementally to its own place", async () => {
  await save();
  using file = await MemoryFile.loadFrom(PLACE, { s3: s3Of(server) });
  file.view({ start: 0, end: PAGE_SIZE }).fill(9);
  const report = await file.saveTo(PLACE, {
    s3: s3Of(server),
    compression: "none",
    incremental: true,
  });
  expect(report.writtenBytes).toBe(PAGE_SIZE);
  using again = await MemoryFile.loadFrom(PLACE, { s3: s3Of(server) });
  expect(again.view({ start: 0, end: PAGE_SIZE }).every((byte) => byte === 9)).toBe(true);
});

test("saveAll and loadAll send several files through S3", async () => {
  using one = filledFile(100, 1);
  using other = filledFile(200, 2);
  await saveAll(PLACE, { one, other }, { s3: s3Of(server) });
  using files = await loadAll(PLACE, { s3: s3Of(server) });
  expectContents(files.get("one")!, 100, 1);
  expectContents(files.get("other")!, 200, 2);
});

test("loadFrom names a place without a checkpoint, and the bad part of a URL", async () => {
  await expect(MemoryFile.loadFrom(PLACE, { s3: s3Of(server) })).rejects.toThrow(NoCheckpointError);
  await expect(MemoryFile.loadFrom("s3://B/x", { s3: s3Of(server) })).rejects.toThrow(TypeError);
});

test("openSource opens the contents of a place", async () => {
  await save();
  const source = await openSource(PLACE, { s3: s3Of(server) });
  expect(source.kind).toBe("remote");
});
