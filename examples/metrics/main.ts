/**
 * A service that restores its memory and serves /metrics for Prometheus.
 *
 *   bun main.ts [--port 9464] [--checkpoint DIR] [--mib 256]
 *
 * It makes a checkpoint if there is none, restores it in the background, and answers /page/N with
 * the first word of page N, loaded on demand. Without --checkpoint it uses a temporary directory.
 * Stop it with SIGINT or SIGTERM.
 */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { channel } from "node:diagnostics_channel";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { MemoryFile, PAGE_SIZE, prometheus } from "pgalloc";

const { values } = parseArgs({
  options: {
    port: { type: "string", default: "9464" },
    checkpoint: { type: "string" },
    mib: { type: "string", default: "256" },
  },
});
const directory = values.checkpoint ?? mkdtempSync(join(tmpdir(), "pgalloc-metrics-"));
const pages = (Number(values.mib) * 2 ** 20) / PAGE_SIZE;

if (!existsSync(join(directory, "meta"))) {
  using first = MemoryFile.create({ name: "numbers" });
  const words = first.view(first.allocate(pages * PAGE_SIZE), Uint32Array);
  for (let page = 0; page < pages; page++) words[(page * PAGE_SIZE) / 4] = page;
  await first.saveTo(directory);
}

// Events for a log. Bun 1.4 collects a channel whose constant no later code uses, with its
// subscribers: a property of globalThis keeps it.
const waits = channel("pgalloc:await");
Object.assign(globalThis, { waits });
waits.subscribe((message) => {
  const { start, waitMs } = message as { start: number; waitMs: number };
  if (waitMs > 10) console.error(`waited ${waitMs.toFixed(1)} ms for the page at ${start}`);
});

const file = await MemoryFile.loadFrom(directory, { background: true, name: "numbers" });
const server = Bun.serve({
  port: Number(values.port),
  async fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === "/metrics") {
      return new Response(prometheus(file), {
        headers: { "content-type": "text/plain; version=0.0.4; charset=utf-8" },
      });
    }
    const page = Number(/^\/page\/(\d+)$/.exec(pathname)?.[1] ?? Number.NaN);
    if (!(page < pages)) return new Response("not found\n", { status: 404 });
    const range = { start: page * PAGE_SIZE, end: (page + 1) * PAGE_SIZE };
    await file.awaitLoad(range);
    return new Response(`${file.view(range, Uint32Array)[0]}\n`);
  },
});
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, async () => {
    await server.stop();
    file.destroy();
    if (values.checkpoint === undefined) rmSync(directory, { recursive: true, maxRetries: 3 });
  });
}
console.log(`serving on ${server.url}`);
