/** The check of stores that ignore conditions. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { UnsupportedError } from "../../src/errors/errors.ts";
import { checkConditions, forgetPreflights } from "../../src/remote/preflight.ts";
import { bucketOf } from "../http/support/clients.ts";
import { S3Server } from "../http/support/s3-server.ts";

let server: S3Server;
beforeEach(async () => {
  forgetPreflights();
  server = await S3Server.start();
});
afterEach(() => server[Symbol.asyncDispose]());

test("checkConditions passes a good store once, and leaves nothing", async () => {
  const bucket = await bucketOf(server);
  await checkConditions(bucket);
  expect(server.objects.size).toBe(0);
  expect(server.seen.length).toBe(3);
  await checkConditions(bucket);
  expect(server.seen.length).toBe(3);
});

test("checkConditions refuses a store that ignores If-None-Match", async () => {
  server.ignoresConditions = true;
  const bucket = await bucketOf(server);
  await expect(checkConditions(bucket)).rejects.toThrow(UnsupportedError);
  await expect(checkConditions(bucket)).rejects.toThrow("ignores If-None-Match");
  expect(server.objects.size).toBe(0);
});

test("checkConditions is not misled by lost answers", async () => {
  server.misbehave({ method: "PUT", skip: 1, times: 1, fault: { losesAnswer: true } });
  await checkConditions(await bucketOf(server));
  forgetPreflights();
  server.ignoresConditions = true;
  server.misbehave({ method: "PUT", times: 1, fault: { losesAnswer: true } });
  await expect(checkConditions(await bucketOf(server))).rejects.toThrow(UnsupportedError);
});
