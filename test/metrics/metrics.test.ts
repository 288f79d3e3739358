/** Counters of a file, compared with the program's calls. promtool checks the text. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { channel } from "node:diagnostics_channel";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Store } from "../../src/data/index.ts";
import { MemoryFile, PAGE_SIZE, prometheus, saveAll } from "../../src/index.ts";

const directory = mkdtempSync(join(tmpdir(), "pgalloc-metrics-"));
afterAll(() => rmSync(directory, { recursive: true }));
const promtool = Bun.which("promtool");

/** Saves a file of `pages` pages, each with its number. */
async function saveNumbers(name: string, pages: number): Promise<string> {
  using file = MemoryFile.create({ name });
  const range = file.allocate(pages * PAGE_SIZE);
  const words = file.view(range, Uint32Array);
  for (let page = 0; page < pages; page++) words[(page * PAGE_SIZE) / 4] = page + 1;
  const path = join(directory, name);
  await file.saveTo(path);
  return path;
}

/** Answers like a web server with ranges and entity tags. */
async function serveRange(path: string, request: Request): Promise<Response> {
  const file = Bun.file(path);
  if (!(await file.exists())) return new Response(null, { status: 404 });
  const headers = { etag: '"1"', "accept-ranges": "bytes" };
  const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.get("range") ?? "");
  if (range === null) return new Response(file, { headers });
  const start = Number(range[1]);
  const end = Math.min(file.size, Number(range[2]) + 1);
  const partial = { ...headers, "content-range": `bytes ${start}-${end - 1}/${file.size}` };
  return new Response(file.slice(start, end), { status: 206, headers: partial });
}

describe("metrics()", () => {
  test("reports memory by state", async () => {
    using file = MemoryFile.create({ name: "states", limitBytes: 1024 * PAGE_SIZE });
    const range = file.allocate(64 * PAGE_SIZE);
    file.view(range).fill(1);
    file.decRef({ start: range.start, end: range.start + 16 * PAGE_SIZE });
    const { memory, name, threads } = file.metrics();
    expect({ name, threads }).toEqual({ name: "states", threads: 1 });
    expect(memory.backing).toBe("memory");
    expect(memory.limitBytes).toBe(1024 * PAGE_SIZE);
    expect(memory.usedBytes).toBe(48 * PAGE_SIZE);
    expect(memory.usedBytes + memory.wasteBytes + memory.freeBytes).toBe(memory.sizeBytes);
    await file.released();
    expect(file.metrics().memory.wasteBytes).toBe(0);
    expect(file.metrics().memory.committedBytes).toBe(file.totalUsageBytes);
    file.allocate(2 * PAGE_SIZE);
    const { allocations, mappedBytes } = file.metrics().memory;
    expect(allocations).toEqual({ count: 2, bytes: 66 * PAGE_SIZE });
    expect(mappedBytes).toBe(0);
  });

  test("counts saves and their bytes, and failed saves by code", async () => {
    using file = MemoryFile.create();
    file.view(file.allocate(8 * PAGE_SIZE)).fill(1);
    const report = await file.saveTo(join(directory, "counted"));
    const { saves, errors } = file.metrics();
    expect(saves.durations.count).toBe(1);
    expect(saves.durations.sumMs).toBeCloseTo(report.durationMs, 1);
    expect([saves.metaBytes, saves.failed]).toEqual([report.metaBytes, 0]);
    expect(saves.pagesBytes).toBeGreaterThan(0);
    expect(errors).toEqual({});
    const error = await file.saveTo("/proc/nothing").catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(Error);
    expect(file.metrics().saves.failed).toBe(1);
    expect(file.metrics().errors).toEqual({ system: 1 });
  });

  test("counts a save of several files once", async () => {
    using first = MemoryFile.create({ name: "first" });
    using second = MemoryFile.create({ name: "second" });
    await saveAll(join(directory, "several"), { first, second });
    const saves = [first, second].map((file) => file.metrics().saves.durations.count);
    expect(saves).toEqual([1, 0]);
  });

  test("reports a load by cause, and its waits by kind", async () => {
    const path = await saveNumbers("loaded", 4096);
    using file = await MemoryFile.loadFrom(path, { background: true, queue: "inline" });
    const range = { start: 4095 * PAGE_SIZE, end: 4096 * PAGE_SIZE };
    await file.awaitLoad(range);
    await file.awaitLoad(range); // already loaded: no wait
    await file.awaitLoad();
    const { load, awaits } = file.metrics();
    expect([load.isLoading, load.totalBytes]).toEqual([false, 4096 * PAGE_SIZE]);
    expect(load.loadedBytes.demand + load.loadedBytes.background).toBe(load.totalBytes);
    expect([awaits.range.count, awaits.all.count, awaits.sync.count]).toEqual([1, 1, 0]);
    const { count, buckets } = awaits.range;
    expect(buckets.reduce((sum, bucket) => sum + bucket.count, 0)).toBe(count);
  });

  test("of a Store reports its pages, and prometheus accepts it", async () => {
    await using store = await Store.open(join(directory, "store"), { create: true });
    store.map("users").set("ann", new Uint8Array(100));
    await store.checkpoint();
    expect(store.metrics().saves.durations.count).toBe(1);
    expect(store.metrics().memory.usedBytes).toBe(store.memory.allocatedBytes);
    expect(prometheus(store)).toContain("pgalloc_save_seconds_count");
  });

  test("counts requests to a web server", async () => {
    const path = await saveNumbers("remote", 512);
    await using server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: (request) => serveRange(join(path, new URL(request.url).pathname), request),
    });
    using file = await MemoryFile.loadFrom(server.url.href, { background: true });
    await file.awaitLoad();
    const { requests, totalBytes } = file.metrics().load;
    expect(requests!.receivedBytes).toBeGreaterThanOrEqual(totalBytes);
    expect(requests!.sent).toBeGreaterThan(0);
    expect(prometheus(file)).toContain(`kind="all"} ${requests!.sent}`);
  });

  test("counts the work of other threads", async () => {
    using file = MemoryFile.create({ name: "shared" });
    file.allocate(PAGE_SIZE);
    const source = `
      import { MemoryFile } from ${JSON.stringify(join(import.meta.dir, "../../src/index.ts"))};
      self.onmessage = async ({ data: { handle, path } }) => {
        const file = MemoryFile.attach(handle);
        await file.saveTo(path);
        postMessage(file.metrics().saves.durations.count);
      };`;
    const program = join(directory, "worker.ts");
    writeFileSync(program, source);
    const worker = new Worker(program);
    const counted = new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = ({ message }) => reject(new Error(message));
    });
    worker.postMessage({ handle: file.share(), path: join(directory, "worker") });
    expect(await counted).toBe(1);
    expect(file.metrics().saves.durations.count).toBe(1);
    worker.terminate();
  });
});

describe("prometheus()", () => {
  test.skipIf(promtool === null)("writes text that promtool accepts", async () => {
    using file = MemoryFile.create({ name: 'quoted "name" \\ and more' });
    using twin = MemoryFile.create({ name: file.name });
    file.view(file.allocate(PAGE_SIZE)).fill(1);
    await file.saveTo(join(directory, "prometheus"));
    await file.saveTo("/proc/nothing").catch((reason: unknown) => expect(reason).toBeDefined());
    const { exitCode, stderr, stdout } = Bun.spawnSync([promtool!, "check", "metrics"], {
      stdin: Buffer.from(prometheus([file, twin])),
    });
    expect(`${stdout}${stderr}`).toBe("");
    expect(exitCode).toBe(0);
  });

  test("names files of one name apart, and gives cumulative buckets", async () => {
    using one = MemoryFile.create({ name: "same" });
    using two = MemoryFile.create({ name: "same" });
    one.allocate(3 * PAGE_SIZE);
    await one.saveTo(join(directory, "same"));
    const lines = prometheus(new Set([one, two])).split("\n");
    expect(lines).toContain(`pgalloc_memory_bytes{file="same",state="used"} ${3 * PAGE_SIZE}`);
    expect(lines).toContain('pgalloc_memory_bytes{file="same#2",state="used"} 0');
    expect(lines).toContain('pgalloc_save_seconds_bucket{file="same",le="+Inf"} 1');
    expect(lines).toContain('pgalloc_save_seconds_count{file="same"} 1');
    const buckets = lines
      .filter((line) => line.startsWith('pgalloc_save_seconds_bucket{file="same",'))
      .map((line) => Number(line.split(" ").at(-1)));
    expect(buckets).toEqual([...buckets].sort((a, b) => a - b));
  });
});

test("diagnostics_channel receives saves, loads and waits", async () => {
  const received: string[] = [];
  const listen = (message: unknown, name: string | symbol) => {
    received.push(`${String(name)} ${Object.keys(message as object).sort()}`);
  };
  // Bun 1.4 forgets subscribers of a channel that was collected: hold the channels.
  const channels = ["pgalloc:save", "pgalloc:load", "pgalloc:await"].map((name) => channel(name));
  for (const one of channels) one.subscribe(listen);
  try {
    const path = await saveNumbers("events", 4096);
    using file = await MemoryFile.loadFrom(path, { background: true, queue: "inline" });
    await file.awaitLoad({ start: 4095 * PAGE_SIZE, end: 4096 * PAGE_SIZE });
    while (received.length < 3) await new Promise((resolve) => setTimeout(resolve, 1));
  } finally {
    for (const one of channels) one.unsubscribe(listen);
  }
  expect(received.filter((line) => line.startsWith("pgalloc:save"))).toEqual([
    "pgalloc:save names,report,where",
  ]);
  expect(received).toContain("pgalloc:load durationMs,name,stats");
  expect(received.filter((line) => line.startsWith("pgalloc:await"))).toEqual([
    "pgalloc:await cause,end,endedMs,error,fileId,name,start,waitMs",
  ]);
});
