/** The S3 requests over a server that misbehaves on command. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import type { Bucket } from "../../src/http/bucket.ts";
import { RemoteError } from "../../src/errors/remote-errors.ts";
import { pattern } from "../aio/support/memory.ts";
import { bucketOf, KEYS } from "./support/clients.ts";
import { S3Server } from "./support/s3-server.ts";

let server: S3Server;
let bucket: Bucket;

beforeEach(async () => {
  server = await S3Server.start();
  bucket = await bucketOf(server);
});
afterEach(() => server[Symbol.asyncDispose]());

async function keysOf(list: AsyncIterable<{ readonly key: string }>): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of list) keys.push(key);
  return keys;
}

async function errorOf(work: Promise<unknown>): Promise<RemoteError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(RemoteError);
  return error as RemoteError;
}

test("put writes an object with a checksum, signed with the region", async () => {
  await bucket.put("some/prefix/a b+c&d", pattern(1000));
  expect(server.objects.get("some/prefix/a b+c&d")!.bytes.length).toBe(1000);
  const { headers } = server.seen.at(-1)!;
  expect(headers["authorization"]).toStartWith(`AWS4-HMAC-SHA256 Credential=${KEYS.accessKeyId}/`);
  expect(headers["authorization"]).toContain("/us-east-1/s3/aws4_request");
  expect(headers["x-amz-checksum-crc32"]).toBeDefined();
});

test("put with ifAbsent fails with changed if the object exists", async () => {
  await bucket.put("key", pattern(10), { ifAbsent: true });
  const error = await errorOf(bucket.put("key", pattern(10), { ifAbsent: true }));
  expect(error).toMatchObject({ failure: "changed", status: 412, s3Code: "PreconditionFailed" });
});

test("put repeats the whole body after a 503", async () => {
  server.misbehave({ fault: { status: 503, s3Code: "SlowDown" }, times: 2 });
  await bucket.put("key", pattern(100_000));
  expect(server.objects.get("key")!.bytes).toEqual(Buffer.from(pattern(100_000)));
});

test("head returns the size, or nothing", async () => {
  await bucket.put("key", pattern(10));
  expect(await bucket.head("key")).toEqual({ sizeBytes: 10 });
  expect(await bucket.head("other")).toBeUndefined();
});

test("delete succeeds with and without an object", async () => {
  await bucket.put("key", pattern(10));
  await bucket.delete("key");
  await bucket.delete("key");
  expect(server.objects.size).toBe(0);
});

test("list follows all pages in the order of keys, and decodes names", async () => {
  server.listMax = 3;
  const names = ["a b", "a&b", "a+b", "ä", "b/c", "d", "e"].map((name) => `p/${name}`);
  for (const name of names) await bucket.put(name, pattern(5));
  await bucket.put("q", pattern(5));
  expect(await keysOf(bucket.list("p/"))).toEqual([...names].sort());
});

test("completeUpload makes one object of its parts", async () => {
  const bytes = pattern(6 * 2 ** 20);
  const upload = { key: "big", uploadId: await bucket.createUpload("big") };
  expect(await keysOf(bucket.listUploads(""))).toEqual(["big"]);
  const half = 5 * 2 ** 20;
  const second = await bucket.uploadPart(upload, 2, bytes.subarray(half));
  const first = await bucket.uploadPart(upload, 1, bytes.subarray(0, half));
  expect(server.objects.size).toBe(0);
  await bucket.completeUpload(upload, [first, second]);
  expect(Buffer.compare(server.objects.get("big")!.bytes, bytes)).toBe(0);
  expect(await keysOf(bucket.listUploads(""))).toEqual([]);
});

test("abortUpload leaves nothing", async () => {
  const uploadId = await bucket.createUpload("big");
  await bucket.abortUpload("big", uploadId);
  await bucket.abortUpload("big", uploadId);
  expect(server.uploads.size).toBe(0);
});

test("uploadPart is refused if the part changes on the way", async () => {
  const upload = { key: "big", uploadId: await bucket.createUpload("big") };
  const body = pattern(1000);
  const sending = bucket.uploadPart(upload, 1, body);
  expect(await sending).toMatchObject({ number: 1 });
  server.misbehave({ method: "PUT", fault: { status: 400, s3Code: "BadDigest" } });
  expect(await errorOf(bucket.uploadPart(upload, 2, body))).toMatchObject({ s3Code: "BadDigest" });
});

test("completeUpload sees an error behind a status of success", async () => {
  const upload = { key: "big", uploadId: await bucket.createUpload("big") };
  const part = await bucket.uploadPart(upload, 1, pattern(10));
  server.misbehave({ method: "POST", fault: { status: 200, s3Code: "InternalError" }, times: 1 });
  await bucket.completeUpload(upload, [part]);
  expect(server.objects.has("big")).toBe(true);
});

test("an error names the bucket's region if the request had another", async () => {
  const fault = { status: 301, headers: { "x-amz-bucket-region": "eu-north-1" } };
  server.misbehave({ fault });
  const error = await errorOf(bucket.put("key", pattern(10)));
  expect(error.message).toContain("the bucket is in region eu-north-1");
});

test("errors show no secret and no query", async () => {
  server.misbehave({ fault: { status: 403, s3Code: "AccessDenied" } });
  const errors = [
    await errorOf(bucket.put("key", pattern(10))),
    await errorOf(bucket.createUpload("key")),
    await errorOf(keysOf(bucket.list("p/"))),
  ];
  server.misbehave({ fault: { losesAnswer: true } });
  errors.push(await errorOf(bucket.put("key", pattern(10), { attemptsMax: 1 })));
  for (const error of errors) {
    const shown = JSON.stringify(error) + error.message + String(error.cause);
    expect(shown + Bun.inspect(error)).not.toContain(KEYS.secretAccessKey);
    expect(shown).not.toMatch(/Signature|\?|AWS4/);
  }
});

/** A bucket of a server that answers every listing with `xml`. */
async function listing(xml: string) {
  const other = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response(xml) });
  return {
    bucket: await bucketOf({ endpoint: `http://127.0.0.1:${other.port}` }),
    [Symbol.asyncDispose]: () => other.stop(true),
  };
}

test("list ends at a server whose next page is always the same", async () => {
  await using server = await listing(
    "<ListBucketResult><IsTruncated>true</IsTruncated>" +
      "<NextContinuationToken>same</NextContinuationToken></ListBucketResult>",
  );
  const error = await errorOf(keysOf(server.bucket.list("a")));
  expect(error.failure).toBe("malformed");
});

test("listUploads ends at a server whose next page is always the same", async () => {
  await using server = await listing(
    "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated>" +
      "<NextKeyMarker>a</NextKeyMarker></ListMultipartUploadsResult>",
  );
  const error = await errorOf(keysOf(server.bucket.listUploads("a")));
  expect(error.failure).toBe("malformed");
});

test("list names a key that is not encoded", async () => {
  await using server = await listing(
    "<ListBucketResult><Contents><Key>%zz</Key></Contents></ListBucketResult>",
  );
  const error = await errorOf(keysOf(server.bucket.list("a")));
  expect(error.message).toContain("Expected an encoded key, got '%zz'");
});
