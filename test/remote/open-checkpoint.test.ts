/** Opening remote checkpoints: the newest complete one, or an error that says what is wrong. */
import { afterAll, afterEach, beforeEach, expect, test } from "bun:test";
import { NoCheckpointError, CorruptCheckpointError } from "../../src/index.ts";
import { openRemoteCheckpoint } from "../../src/remote/open-checkpoint.ts";
import { openPlace } from "../../src/remote/place.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { IMPATIENT } from "../http/support/clients.ts";
import { S3Server } from "../http/support/s3-server.ts";
import { filledFile, PLACE, s3Of } from "./support/store.ts";

let server: S3Server;
beforeEach(async () => {
  server = await S3Server.start();
});
afterEach(() => server[Symbol.asyncDispose]());
afterAll(() => terminateIdleThreads());

const open = async (url = PLACE) =>
  openRemoteCheckpoint(await openPlace(url, { s3: s3Of(server), ...IMPATIENT }));

async function save(seed = 1, pages = 100): Promise<string> {
  using file = filledFile(pages, seed);
  return (await file.saveTo(PLACE, { s3: s3Of(server), compression: "none" })).id;
}

/** Publishes the newest checkpoint of S3 as a directory of a web server. */
function publishOverHttp(): void {
  const manifests = [...server.objects.keys()].filter((key) => key.includes("manifest/")).sort();
  server.put("www/meta", server.objects.get(manifests[0]!)!.bytes);
  for (const [key, { bytes }] of [...server.objects])
    if (key.includes("prefix/pages-")) server.put(key.replace("some/prefix", "www"), bytes);
}

test("openRemoteCheckpoint takes three round trips for the newest checkpoint", async () => {
  await save(1);
  const id = await save(2);
  server.seen.length = 0;
  const { manifest, contents, published } = await open();
  expect(manifest.id.toString(16).padStart(16, "0")).toBe(id);
  expect(published?.sequence).toBe(2);
  expect(contents.length).toBe(2);
  expect(server.seen.map(({ method }) => method)).toEqual(["GET", "GET", "GET"]);
});

test("openRemoteCheckpoint reads a directory over HTTP", async () => {
  const id = await save();
  publishOverHttp();
  const { manifest, published } = await open(`${server.endpoint}/bucket/www/`);
  expect(manifest.id.toString(16).padStart(16, "0")).toBe(id);
  expect(published).toBeNull();
  const { headers } = server.seen.at(-1)!;
  expect(headers["authorization"]).toBeUndefined();
});

test("openRemoteCheckpoint names a place without a checkpoint", async () => {
  await expect(open()).rejects.toThrow(NoCheckpointError);
  await expect(open(`${server.endpoint}/bucket/www`)).rejects.toThrow(NoCheckpointError);
});

test("openRemoteCheckpoint names a page file that is missing, cut off or not its own", async () => {
  await save();
  const [key, object] = [...server.objects].find(([key]) => key.includes("pages-"))!;
  const expectDamage = (message: string) => expect(open()).rejects.toThrow(message);
  server.objects.delete(key);
  await expectDamage("A page file is missing");
  await expect(open()).rejects.toThrow(CorruptCheckpointError);
  server.put(key, object.bytes.subarray(0, -100));
  await expect(open()).rejects.toThrow();
  server.put(key, Buffer.concat([object.bytes, Buffer.alloc(10)]));
  await expectDamage("bytes, got");
  const other = Buffer.from(object.bytes);
  other[other.length - 4096 + 16]! ^= 1;
  server.put(key, other);
  await expectDamage("trailer");
});

test("openRemoteCheckpoint starts again if the checkpoint was replaced meanwhile", async () => {
  await save(1);
  const first = [...server.objects.keys()].find((key) => key.includes("pages-"))!;
  const id = await save(2);
  const newest = server.objects.get("some/prefix/manifest/999999999999997")!;
  // The listing shows the first, whose page file prune has removed.
  server.objects.delete("some/prefix/manifest/999999999999997");
  server.objects.delete(first);
  server.misbehave({ path: /pages-/, times: 1, fault: { status: 404, delayMs: 100 } });
  const opening = open();
  await Bun.sleep(50);
  server.objects.set("some/prefix/manifest/999999999999997", newest);
  expect((await opening).manifest.id.toString(16).padStart(16, "0")).toBe(id);
});

test("openRemoteCheckpoint reads a large manifest completely", async () => {
  using file = filledFile(1);
  const { allocatedBytes } = file;
  expect(allocatedBytes).toBe(4096);
  for (let i = 0; i < 20_000; i++) {
    const range = file.allocate(8192, { kind: i % 7 });
    file.decRef({ start: range.start, end: range.start + 4096 });
    file.view({ start: range.start + 4096, end: range.end })[0] = 1;
  }
  const { metaBytes } = await file.saveTo(PLACE, { s3: s3Of(server), compression: "none" });
  expect(metaBytes).toBeGreaterThan(2 ** 19);
  expect((await open()).manifest.files.length).toBe(1);
});
