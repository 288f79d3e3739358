/** Prune: keeps what a checkpoint needs, removes what writers that died left. */
import { afterAll, afterEach, beforeEach, expect, test } from "bun:test";
import type { Bucket } from "../../src/http/bucket.ts";
import { prune, requireYoung } from "../../src/remote/prune.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { CheckpointConflictError, PAGE_SIZE } from "../../src/index.ts";
import { pattern } from "../aio/support/memory.ts";
import { bucketOf } from "../http/support/clients.ts";
import { S3Server } from "../http/support/s3-server.ts";
import { filledFile, namesIn, PLACE, s3Of } from "./support/store.ts";

const DAY_MS = 24 * 3_600_000;
let server: S3Server;
let bucket: Bucket;

beforeEach(async () => {
  server = await S3Server.start();
  bucket = await bucketOf(server);
});
afterEach(() => server[Symbol.asyncDispose]());
afterAll(() => terminateIdleThreads());

/** Saves so many checkpoints, each on top of the one before, `ageMs` ago. */
async function saveSeveral(count: number, ageMs: number, incremental = true): Promise<void> {
  server.clockMs = -ageMs;
  using file = filledFile(100);
  for (let i = 0; i < count; i++) {
    file.view({ start: i * PAGE_SIZE, end: (i + 1) * PAGE_SIZE }).fill(i + 1);
    await file.saveTo(PLACE, { s3: s3Of(server), compression: "none", incremental });
  }
  server.clockMs = 0;
}

const countOf = (name: string) => namesIn(server).filter((one) => one.startsWith(name)).length;

test("prune keeps N checkpoints and the page files that they share", async () => {
  await saveSeveral(4, 2 * DAY_MS);
  expect(countOf("pages-")).toBe(4);
  const report = await prune(bucket, { keep: 2 });
  expect(report).toMatchObject({
    kept: [4, 3],
    removedCheckpoints: [2, 1],
    removedPageFiles: 0,
  });
  expect(countOf("manifest/")).toBe(2);
  expect(countOf("pages-")).toBe(4);
});

test("prune removes page files that no checkpoint names any more", async () => {
  await saveSeveral(4, 2 * DAY_MS, false);
  const report = await prune(bucket, { keep: 1 });
  expect(report).toMatchObject({ kept: [4], removedPageFiles: 3 });
  expect(report.removedBytes).toBeGreaterThan(3 * 100 * PAGE_SIZE);
  expect(namesIn(server).length).toBe(2);
});

test("prune keeps objects younger than the minimum age", async () => {
  await saveSeveral(2, 2 * DAY_MS, false);
  await saveSeveral(2, DAY_MS / 2, false);
  const report = await prune(bucket, { keep: 1 });
  expect(report).toMatchObject({ kept: [4, 3], removedCheckpoints: [2, 1], removedPageFiles: 2 });
  const none = await prune(bucket, { keep: 1, minAgeMs: 3 * DAY_MS });
  expect(none).toMatchObject({ kept: [4, 3], removedBytes: 0 });
});

test("prune removes objects of writers that died, once they are old", async () => {
  await saveSeveral(1, 0);
  const leave = async () => {
    await bucket.createUpload("some/prefix/pages-00000000000000aa");
    server.put("some/prefix/pages-00000000000000bb", pattern(10));
    server.put("some/prefix/preflight-1", pattern(10));
  };
  await leave();
  server.put("some/prefix/README", pattern(10));
  server.put("some/prefix/pages-of-another-program", pattern(10));
  const names = namesIn(server);
  expect(await prune(bucket, { keep: 1 })).toMatchObject({ abortedUploads: 0, removedBytes: 0 });
  expect(namesIn(server)).toEqual(names);
  server.clockMs = -2 * DAY_MS;
  await leave();
  const dry = await prune(bucket, { keep: 1, dryRun: true });
  expect(dry).toMatchObject({ abortedUploads: 1, removedPageFiles: 1, removedBytes: 20 });
  expect(namesIn(server)).toEqual(names);
  expect(await prune(bucket, { keep: 1 })).toEqual(dry);
  expect(server.uploads.size).toBe(1);
  expect(namesIn(server)).toEqual(
    names.filter((name) => !["preflight-1", "pages-00000000000000bb"].includes(name)),
  );
});

test("prune touches nothing outside the prefix", async () => {
  server.clockMs = -2 * DAY_MS;
  server.put("some/prefix2/pages-00000000000000aa", pattern(10));
  server.put("pages-00000000000000aa", pattern(10));
  await prune(bucket, { keep: 1 });
  expect(server.objects.size).toBe(2);
});

test("prune checks its options", async () => {
  for (const keep of [0, 1.5, -1])
    await expect(prune(bucket, { keep })).rejects.toThrow(RangeError);
  const early = prune(bucket, { keep: 1, minAgeMs: DAY_MS - 1 });
  await expect(early).rejects.toThrow("at least a day");
});

test("prune stops at a damaged manifest before it removes page files", async () => {
  await saveSeveral(2, 2 * DAY_MS, false);
  const key = "some/prefix/manifest/999999999999997";
  const bytes = Buffer.from(server.objects.get(key)!.bytes);
  bytes[300]! ^= 1;
  server.clockMs = -2 * DAY_MS;
  server.put(key, bytes);
  await expect(prune(bucket, { keep: 1 })).rejects.toThrow("checksum");
  expect(countOf("pages-")).toBe(2);
});

test("requireYoung refuses an upload that began more than twelve hours ago", () => {
  requireYoung(PLACE, 1000, 1000 + DAY_MS / 2);
  expect(() => requireYoung(PLACE, 1000, 1001 + DAY_MS / 2)).toThrow(CheckpointConflictError);
});
