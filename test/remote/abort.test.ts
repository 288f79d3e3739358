/** The option `signal` ends calls whose server does not answer, and is not answered by retries. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Store } from "../../src/data/index.ts";
import { loadAll, MemoryFile, openSource, saveAll } from "../../src/index.ts";

const root = mkdtempSync(join(tmpdir(), "pgalloc-abort-"));
const file = MemoryFile.create();
const silent = Bun.serve({ port: 0, idleTimeout: 0, fetch: () => new Promise<Response>(() => {}) });
afterAll(() => {
  void silent.stop(true);
  rmSync(root, { recursive: true });
});
const keys = { accessKeyId: "a", secretAccessKey: "b" };
const s3 = { ...keys, endpoint: silent.url.href };
const never = { endpoint: silent.url.href, credentials: () => new Promise<never>(() => {}) };
const [url, bucket] = [`${silent.url.href}checkpoint`, "s3://bucket/prefix"];
const cache = join(root, "cache");

const calls: Record<string, (signal: AbortSignal) => Promise<unknown>> = {
  saveTo: (signal) => file.saveTo(bucket, { s3, signal }),
  saveAll: (signal) => saveAll(bucket, { file }, { s3, signal }),
  "saveTo without credentials": (signal) => file.saveTo(bucket, { s3: never, signal }),
  "loadFrom s3": (signal) => MemoryFile.loadFrom(bucket, { s3, signal }),
  "loadFrom without credentials": (signal) => MemoryFile.loadFrom(bucket, { s3: never, signal }),
  "loadFrom https": (signal) => MemoryFile.loadFrom(url, { signal }),
  "loadFrom in the background": (signal) => MemoryFile.loadFrom(url, { signal, background: true }),
  "loadFrom with a cache": (signal) => MemoryFile.loadFrom(url, { signal, cache }),
  open: (signal) => MemoryFile.open(url, { signal, create: true }),
  loadAll: (signal) => loadAll(url, { signal }),
  openSource: (signal) => openSource(url, { signal }),
  "Store.open": (signal) => Store.open(url, { signal }),
};

test.each(Object.entries(calls))("%s ends when its signal is aborted", async (_, call) => {
  const controller = new AbortController();
  const reason = new Error("enough");
  const work = call(controller.signal);
  setTimeout(() => controller.abort(reason), 20);
  await expect(work).rejects.toBe(reason);
});

test("aborted calls leave no connection open", async () => {
  const connections = () => (silent.pendingRequests ?? 0) as number;
  for (let i = 0; i < 200 && connections() > 0; i++) await Bun.sleep(5);
  expect(connections()).toBe(0);
});
