/** Ranges of objects over a server that misbehaves on command. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { RemoteError } from "../../src/errors/remote-errors.ts";
import { Counter } from "../../src/http/counters.ts";
import { getRange, getStart, type RangeRequest } from "../../src/http/range.ts";
import { pattern } from "../aio/support/memory.ts";
import { plainClient } from "./support/clients.ts";
import { type Fault, S3Server } from "./support/s3-server.ts";

const OBJECT_BYTES = 2 ** 18;
const contents = pattern(OBJECT_BYTES);
let server: S3Server;
let url: string;

beforeAll(async () => {
  server = await S3Server.start();
  server.put("file", contents);
  url = `${server.endpoint}/bucket/file`;
});
afterAll(() => server[Symbol.asyncDispose]());

/** Reads [start, end) and returns the bytes. */
async function read(
  request: Partial<RangeRequest> = {},
  options: { attemptsMax?: number; signal?: AbortSignal } = {},
): Promise<Uint8Array> {
  const { start = 4096, end = 69_632 } = request;
  const bytes = new Uint8Array(end - start);
  const take = (piece: Uint8Array, offset: number) => bytes.set(piece, offset);
  await getRange(plainClient(), { url, ...request, start, end }, take, options);
  return bytes;
}

async function failureOf(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(RemoteError);
  return (error as RemoteError).failure;
}

const expected = contents.subarray(4096, 69_632);

const PASSING: Record<string, [fault: Fault, failure: string]> = {
  "503": [{ status: 503, s3Code: "SlowDown" }, "busy"],
  "500": [{ status: 500 }, "busy"],
  "429": [{ status: 429 }, "busy"],
  "a connection that is cut": [{ cutAfterBytes: 1000 }, "truncated"],
  "a connection closed without an answer": [{ losesAnswer: true }, "unreachable"],
  "another range": [{ shiftBytes: 4096 }, "wrong range"],
  "a shorter range": [{ shortenBytes: 100 }, "short"],
  "more bytes than the range has": [{ extraBytes: 100 }, "long"],
  "no byte for too long": [{ stallAfterBytes: 1000 }, "stalled"],
  "no answer": [{ delayMs: 1000 }, "stalled"],
  "a slow drip": [{ dripBytes: 200 }, "stalled"],
  "a Content-Range that says nothing": [{ headers: { "content-range": "bytes" } }, "malformed"],
};

describe("getRange", () => {
  test("returns the bytes of the range and the identity of the object", async () => {
    server.misbehave();
    expect(await read()).toEqual(expected);
    const client = plainClient();
    const identity = await getRange(client, { url, start: 0, end: 10 }, () => undefined);
    expect(identity).toMatchObject({
      sizeBytes: OBJECT_BYTES,
      etag: server.objects.get("file")!.etag,
    });
    expect(client.counters[Counter.Requests]).toBe(1);
    expect(client.counters[Counter.ReceivedBytes]).toBe(10);
  });

  for (const [title, [fault, failure]] of Object.entries(PASSING)) {
    test(`reports ${title} as ${failure}`, async () => {
      server.misbehave({ fault });
      expect(await failureOf(read({}, { attemptsMax: 1 }))).toBe(failure);
    });

    test(`continues reading after ${title}`, async () => {
      server.misbehave({ fault, times: 2 });
      expect(await read()).toEqual(expected);
    });
  }

  for (const [title, fault, failure] of [
    ["404", { status: 404 }, "missing"],
    ["403", { status: 403, s3Code: "AccessDenied" }, "refused"],
    ["the whole object", { ignoresRange: true }, "refused"],
  ] as const) {
    test(`does not repeat the request after ${title}`, async () => {
      server.misbehave({ fault });
      const before = server.seen.length;
      expect(await failureOf(read())).toBe(failure);
      expect(server.seen.length).toBe(before + 1);
    });
  }

  test("sends If-Match, and reports an object that has changed", async () => {
    server.misbehave();
    const identity = await getRange(plainClient(), { url, start: 0, end: 1 }, () => undefined);
    expect(await read({ identity })).toEqual(expected);
    expect(server.seen.at(-1)!.headers["if-match"]).toBe(identity.etag!);
    server.put("file", pattern(OBJECT_BYTES, 2));
    expect(await failureOf(read({ identity }))).toBe("changed");
    server.put("file", contents);
  });

  test("checks the answer of a server that ignores If-Match", async () => {
    server.misbehave({ fault: { headers: { etag: 'W/"weak"' } } });
    const identity = await getRange(plainClient(), { url, start: 0, end: 1 }, () => undefined);
    expect(identity.etag).toBe('W/"weak"');
    expect(await read({ identity })).toEqual(expected);
    expect(server.seen.at(-1)!.headers["if-match"]).toBeUndefined();
    server.misbehave({ fault: { headers: { etag: 'W/"other"' } } });
    expect(await failureOf(read({ identity }))).toBe("changed");
  });

  test("reports an object that became shorter than the range", async () => {
    server.misbehave();
    expect(await failureOf(read({ start: OBJECT_BYTES, end: OBJECT_BYTES + 1 }))).toBe("changed");
  });

  test("waits as long as Retry-After says", async () => {
    const fault = { status: 503, headers: { "retry-after": "1" } };
    server.misbehave({ fault, times: 1 });
    const beganMs = performance.now();
    expect(await read()).toEqual(expected);
    expect(performance.now() - beganMs).toBeGreaterThan(990);
  });

  test("ends at once when its signal aborts", async () => {
    server.misbehave({ fault: { stallAfterBytes: 100 } });
    const abort = new AbortController();
    const reading = read({}, { signal: abort.signal });
    await Bun.sleep(50);
    const beganMs = performance.now();
    abort.abort(new Error("the program's reason"));
    expect(reading).rejects.toThrow("the program's reason");
    await reading.catch((error: Error) => expect(error.message).toBe("the program's reason"));
    expect(performance.now() - beganMs).toBeLessThan(90);
  });

  test("fails after its last attempt", async () => {
    server.misbehave({ fault: { status: 503 } });
    const before = server.seen.length;
    expect(await failureOf(read({}, { attemptsMax: 3 }))).toBe("busy");
    expect(server.seen.length).toBe(before + 3);
  });

  test("retries no more than the client's budget allows", async () => {
    server.misbehave({ fault: { status: 503 } });
    const client = plainClient();
    const before = server.seen.length;
    const work = Array.from({ length: 40 }, () =>
      getRange(client, { url, start: 0, end: 1 }, () => undefined),
    );
    const results = await Promise.allSettled(work);
    expect(results.every(({ status }) => status === "rejected")).toBe(true);
    expect(server.seen.length - before).toBeLessThanOrEqual(40 + 64);
  });
});

describe("getStart", () => {
  test("returns the first bytes, or all of a smaller object", async () => {
    server.misbehave();
    const some = await getStart(plainClient(), url, 100);
    expect(some.bytes).toEqual(contents.slice(0, 100));
    expect(some.identity.sizeBytes).toBe(OBJECT_BYTES);
    const all = await getStart(plainClient(), url, 2 ** 20);
    expect(all.bytes).toEqual(contents);
  });

  test("refuses an answer that is too short", async () => {
    server.misbehave({ fault: { shortenBytes: 1 } });
    const client = plainClient({ retry: { attemptsMax: 2 } });
    expect(await failureOf(getStart(client, url, 2 ** 20))).toBe("wrong range");
  });
});
