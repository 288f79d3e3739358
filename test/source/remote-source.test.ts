/**
 * Behaviour of remote sources alone: retries, hedged reads, a window, requests that end with the
 * reader.
 */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { bufferAt, detach, mapAnonymous, unmap } from "../../ffi/index.ts";
import { Counter, openCounters } from "../../src/http/counters.ts";
import { openReader, type SourceReader } from "../../src/source/index.ts";
import type { RemoteSource } from "../../src/source/remote-source.ts";
import { pattern } from "../aio/support/memory.ts";
import { S3Server } from "../http/support/s3-server.ts";
import { remoteSource } from "./support/remote.ts";

const CONTENT_BYTES = 2 ** 22;
const MEMORY_BYTES = 2 ** 22;
const contents = pattern(CONTENT_BYTES);
const PIECE = 65_536;

let server: S3Server;
let source: RemoteSource;
let memory: number;
let buffer: ArrayBuffer;

beforeEach(async () => {
  server = await S3Server.start();
  server.put("pages", contents);
  source = await remoteSource(server, ["pages"]);
  memory = mapAnonymous(MEMORY_BYTES);
  buffer = bufferAt(memory, MEMORY_BYTES);
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  detach(buffer);
  unmap(memory, MEMORY_BYTES);
});

/** Reads pieces [first, first + count) of the content to their places in memory. */
async function readPieces(reader: SourceReader, first: number, count: number) {
  const errors: (Error | null)[] = [];
  let next = first;
  let ended = 0;
  while (ended < count) {
    while (next < first + count && reader.inFlight < reader.capabilities.readsInFlight) {
      const offset = next * PIECE;
      reader.read(next++, 0, offset, Float64Array.of(memory + offset, PIECE), 1);
    }
    const done = await reader.waitAsync(1);
    errors.push(...done.errors.slice(0, done.count));
    ended += done.count;
  }
  return errors.filter((error) => error !== null);
}

function expectPieces(first: number, count: number): void {
  const [start, end] = [first * PIECE, (first + count) * PIECE];
  expect(
    Buffer.compare(new Uint8Array(buffer, start, end - start), contents.subarray(start, end)),
  ).toBe(0);
}

for (const use of ["background", "demand"] as const) {
  test(`${use} reads fill memory over a server that sometimes fails`, async () => {
    const reader = await openReader(source, use);
    // Background reads of neighbouring bytes share a request.
    const skip = use === "background" ? [0, 0, 0] : [3, 8, 15];
    server.misbehave(
      { skip: skip[0]!, times: 2, fault: { cutAfterBytes: 5000 } },
      { skip: skip[1]!, times: 2, fault: { status: 503, s3Code: "SlowDown" } },
      { skip: skip[2]!, times: 1, fault: { shiftBytes: 512 } },
    );
    expect(await readPieces(reader, 0, 64)).toEqual([]);
    expectPieces(0, 64);
    expect(openCounters(source.counters)[Counter.Retries]).toBeGreaterThanOrEqual(5);
    expect(server.seen.every(({ headers }) => headers["if-match"] !== undefined)).toBe(true);
    await reader.close();
  });

  test(`${use} reads of an object that was replaced fail with changed`, async () => {
    const reader = await openReader(source, use);
    server.put("pages", pattern(CONTENT_BYTES, 7));
    const [error] = await readPieces(reader, 0, 1);
    expect(error).toMatchObject({ code: "ERR_REMOTE", failure: "changed" });
    await reader.close();
  });
}

test("background reads of one turn share a request if their bytes follow one another", async () => {
  const reader = await openReader(source, "background");
  const order = [5, 1, 0, 40, 6, 2];
  for (const piece of order)
    reader.read(piece, 0, piece * PIECE, Float64Array.of(memory + piece * PIECE, PIECE), 1);
  const ids: number[] = [];
  while (ids.length < order.length) {
    const { count, ids: ended } = await reader.waitAsync(1);
    ids.push(...ended.slice(0, count));
  }
  expect(ids.sort((a, b) => a - b)).toEqual([0, 1, 2, 5, 6, 40]);
  const ranges = server.seen.map(({ headers }) => headers["range"]).sort();
  const range = (first: number, end: number) => `bytes=${first * PIECE}-${end * PIECE - 1}`;
  expect(ranges).toEqual([range(0, 3), range(40, 41), range(5, 7)]);
  for (const piece of order) expectPieces(piece, 1);
  await reader.close();
});

test("demand reads repeat a late request, and fill their memory once", async () => {
  const reader = await openReader(source, "demand");
  expect(await readPieces(reader, 0, 40)).toEqual([]);
  server.misbehave({ times: 1, fault: { delayMs: 5000 } });
  const beganMs = performance.now();
  expect(await readPieces(reader, 40, 1)).toEqual([]);
  expect(performance.now() - beganMs).toBeLessThan(2000);
  expectPieces(40, 1);
  expect(openCounters(source.counters)[Counter.Hedges]).toBe(1);
  await reader.close();
});

test("close ends requests at once, and memory does not change afterwards", async () => {
  for (const use of ["background", "demand"] as const) {
    const reader = await openReader(source, use);
    server.misbehave({ fault: { dripBytes: 100 } });
    for (let i = 0; i < 16; i++)
      reader.read(i, 0, i * PIECE, Float64Array.of(memory + i * PIECE, PIECE), 1);
    await Bun.sleep(50);
    const beganMs = performance.now();
    await reader.close();
    expect(performance.now() - beganMs).toBeLessThan(1000);
    const after = new Uint8Array(buffer).slice();
    await Bun.sleep(50);
    expect(Buffer.compare(new Uint8Array(buffer), after)).toBe(0);
  }
});

test("a thread that is not the program's reads while the program is busy", async () => {
  // The server needs an event loop that this thread does not give it, so it is a process of its
  // own.
  const program = Bun.spawn([process.execPath, "test/http/support/server-program.ts"], {
    stdout: "pipe",
  });
  const line = await program.stdout.getReader().read();
  const endpoint = new TextDecoder().decode(line.value).trim();
  const url = `${endpoint}/bucket/pages`;
  await fetch(url, { method: "PUT", body: contents.slice() });
  const head = await fetch(url, { method: "HEAD" });
  const identity = {
    sizeBytes: CONTENT_BYTES,
    etag: head.headers.get("etag"),
    modified: head.headers.get("last-modified"),
  };
  const done = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(new URL("./support/read-worker.ts", import.meta.url).href);
  worker.postMessage({
    source: { ...source, contents: [{ url, identity }] },
    memory,
    lengthBytes: CONTENT_BYTES,
    done,
  });
  // Blocks the event loop of this thread until the Worker has read everything.
  expect(Atomics.wait(done, 0, 0, 20_000)).not.toBe("timed-out");
  expectPieces(0, CONTENT_BYTES / PIECE);
  worker.terminate();
  program.kill();
  await program.exited;
});
