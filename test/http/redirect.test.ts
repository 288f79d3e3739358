/** Redirects: followed by the client itself, and never with credentials to another host. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { getRange } from "../../src/http/range.ts";
import { pattern } from "../aio/support/memory.ts";
import { bucketOf } from "./support/clients.ts";
import { S3Server } from "./support/s3-server.ts";

let server: S3Server;
let other: S3Server;

beforeEach(async () => {
  server = await S3Server.start();
  other = await S3Server.start();
  server.put("key", pattern(100));
  other.put("key", pattern(100));
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  await other[Symbol.asyncDispose]();
});

const redirect = (location: string, status = 307) => ({
  path: /key$/,
  times: 1,
  fault: { status, headers: { location } },
});

test("a redirect to the same host is signed again", async () => {
  const bucket = await bucketOf(server);
  server.misbehave(redirect("/bucket/key?moved=1"));
  await getRange(bucket.client, { url: bucket.url("key"), start: 0, end: 10 }, () => undefined);
  const [first, second] = server.seen.map(({ headers }) => headers["authorization"]);
  expect(first).toStartWith("AWS4-HMAC-SHA256 ");
  expect(second).toStartWith("AWS4-HMAC-SHA256 ");
  expect(second).not.toBe(first);
});

test("a redirect to another host has the range, and no credentials", async () => {
  const bucket = await bucketOf(server);
  server.misbehave(redirect(`${other.endpoint}/bucket/key`));
  await getRange(bucket.client, { url: bucket.url("key"), start: 0, end: 10 }, () => undefined);
  const { headers } = other.seen[0]!;
  expect(headers["range"]).toBe("bytes=0-9");
  for (const name of Object.keys(headers)) expect(name).not.toMatch(/authorization|x-amz/);
});

test("a redirect from the other host back has no credentials", async () => {
  const bucket = await bucketOf(server);
  server.misbehave(redirect(`${other.endpoint}/bucket/key`));
  other.misbehave(redirect(`${server.endpoint}/bucket/key`));
  await getRange(bucket.client, { url: bucket.url("key"), start: 0, end: 10 }, () => undefined);
  expect(server.seen.at(-1)!.headers["authorization"]).toBeUndefined();
});

test("a write is not redirected to another host", async () => {
  const bucket = await bucketOf(server);
  server.misbehave(redirect(`${other.endpoint}/bucket/key`));
  expect(bucket.put("key", pattern(10))).rejects.toThrow("set the region or endpoint");
  await bucket.put("x", pattern(10));
  expect(other.seen).toEqual([]);
});

test("a redirect away from https, or in a circle, is refused", async () => {
  const bucket = await bucketOf(server);
  const read = () =>
    getRange(bucket.client, { url: bucket.url("key"), start: 0, end: 10 }, () => undefined);
  server.misbehave(redirect("ftp://127.0.0.1/key"));
  await expect(read()).rejects.toThrow("Refused a redirect from http: to ftp:");
  server.misbehave({ path: /key$/, fault: { status: 302, headers: { location: "/bucket/key" } } });
  await expect(read()).rejects.toThrow("at most 5 redirects");
});
