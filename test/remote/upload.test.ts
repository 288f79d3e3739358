/** Page files sent in parts by several threads. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { createCounters } from "../../src/http/counters.ts";
import { CredentialOwner, providerOf } from "../../src/http/credentials.ts";
import type { Bucket } from "../../src/http/bucket.ts";
import { openBucket, PageUpload, UploadWriter } from "../../src/remote/upload.ts";
import { parseS3Place } from "../../src/http/s3-options.ts";
import { NativeMemory, pattern } from "../aio/support/memory.ts";
import { IMPATIENT, KEYS } from "../http/support/clients.ts";
import { S3Server } from "../http/support/s3-server.ts";

const UNIT = 2 ** 21;
const PART = 4 * UNIT;
const KEY = "some/prefix/pages-1";
const trailer = pattern(4096, 99);

let server: S3Server;
let bucket: Bucket;
let shared: {
  signing: { credentials: SharedArrayBuffer; region: string };
  counters: SharedArrayBuffer;
};

beforeEach(async () => {
  server = await S3Server.start();
  const owner = new CredentialOwner(providerOf(KEYS));
  await owner.ready();
  shared = {
    signing: { credentials: owner.handle, region: "us-east-1" },
    counters: createCounters(),
  };
  const place = parseS3Place("s3://bucket/some/prefix", { endpoint: server.endpoint });
  bucket = await openBucket(place, shared.signing, IMPATIENT);
});
afterEach(() => server[Symbol.asyncDispose]());

/** Writes `memory` in units by `threads` writers in turn, and completes the upload. */
async function upload(memory: NativeMemory, contentBytes: number, threads: number) {
  const sending = PageUpload.begin(bucket, KEY, contentBytes + trailer.length, shared);
  const writers = Array.from({ length: threads }, () => new UploadWriter(sending.description));
  const units = Math.ceil(contentBytes / UNIT);
  await Promise.all(
    writers.map(async (writer, thread) => {
      for (let unit = thread; unit < units; unit += threads) {
        const offset = unit * UNIT;
        const lengthBytes = Math.min(UNIT, contentBytes - offset);
        await writer.write(memory.address + offset, lengthBytes, offset);
      }
    }),
  );
  await Promise.all(writers.map((writer) => writer.close()));
  await sending.complete(contentBytes, trailer);
  return sending;
}

function expectObject(contents: Uint8Array): void {
  const { bytes } = server.objects.get(KEY)!;
  expect(bytes.byteLength).toBe(contents.byteLength + trailer.byteLength);
  expect(Buffer.compare(bytes.subarray(0, contents.length), contents)).toBe(0);
  expect(Buffer.compare(bytes.subarray(contents.length), trailer)).toBe(0);
  expect(server.uploads.size).toBe(0);
}

const SIZES = [0, 4096, PART - 4096, PART, PART + 4096, 11 * PART, 11 * PART + 3 * 4096];

for (const contentBytes of SIZES) {
  test(`three writers make one object of ${contentBytes} bytes`, async () => {
    using memory = new NativeMemory(Math.max(contentBytes, 4096));
    const contents = pattern(contentBytes);
    memory.bytes.set(contents);
    await upload(memory, contentBytes, 3);
    expectObject(contents);
    const posts = server.seen.filter(({ method }) => method === "POST").length;
    expect(posts).toBe(contentBytes >= PART ? 2 : 0);
  });
}

test("more bytes than expected may be written", async () => {
  using memory = new NativeMemory(3 * PART);
  memory.bytes.set(pattern(3 * PART));
  const sending = PageUpload.begin(bucket, KEY, 0, shared);
  const writer = new UploadWriter(sending.description);
  for (let part = 0; part < 3; part++)
    await writer.write(memory.address + part * PART, PART, part * PART);
  await writer.close();
  await sending.complete(3 * PART, trailer);
  expectObject(pattern(3 * PART));
});

test("frames that end within a page are followed by zeros to its end", async () => {
  using memory = new NativeMemory(2 * PART);
  const sending = PageUpload.begin(bucket, KEY, 3 * PART, shared);
  const writer = new UploadWriter(sending.description);
  const expected = new Uint8Array(PART + 8192);
  memory.bytes.set(pattern(2 * PART));
  let at = 0;
  for (let i = 0; at < PART + 8192; i++) {
    const lengthBytes = Math.min(100_001 + i, PART + 8192 - at);
    await writer.write(memory.address, lengthBytes, at);
    expected.set(memory.bytes.subarray(0, lengthBytes), at);
    at = Math.ceil((at + lengthBytes) / 4096) * 4096;
  }
  await writer.close();
  await sending.complete(at, trailer);
  expectObject(expected);
});

test("an upload continues over a server that sometimes fails", async () => {
  using memory = new NativeMemory(5 * PART);
  memory.bytes.set(pattern(5 * PART));
  server.misbehave(
    { method: "PUT", skip: 1, times: 2, fault: { status: 503, s3Code: "SlowDown" } },
    { method: "PUT", skip: 3, times: 1, fault: { losesAnswer: true } },
    { method: "POST", path: /uploadId/, times: 1, fault: { losesAnswer: true } },
  );
  await upload(memory, 5 * PART, 2);
  expectObject(pattern(5 * PART));
});

test("a part that cannot be sent fails its writer and the waiting ones", async () => {
  using memory = new NativeMemory(PART);
  server.misbehave({ method: "PUT", fault: { status: 403, s3Code: "AccessDenied" } });
  const sending = PageUpload.begin(bucket, KEY, 100 * PART, shared);
  const writers = [0, 1].map(() => new UploadWriter(sending.description));
  const results = await Promise.allSettled(
    writers.map(async (writer, thread) => {
      for (let part = thread; part < 40; part += 2)
        await writer.write(memory.address, PART, part * PART);
    }),
  );
  expect(results.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  for (const writer of writers) await expect(writer.close()).rejects.toThrow("AccessDenied");
  server.misbehave();
  await sending.abort();
  await sending.abort();
  expect(server.uploads.size).toBe(0);
  expect(server.objects.size).toBe(0);
});

test("parts grow when S3's limit of parts requires it", async () => {
  const sending = PageUpload.begin(bucket, KEY, 2 ** 40, shared);
  const { partBytes, bufferCount } = sending.description;
  expect(2 ** 40 / partBytes).toBeLessThan(1_101);
  expect(partBytes % UNIT).toBe(0);
  expect(bufferCount).toBe(3);
  await sending.abort();
});
