/**
 * A service for documents with vectors: `bun examples/documents/main.ts --dir ./documents [--port
 * 3000] [--workers 2]`.
 *
 *   PUT /documents/ID {"vector": […], "text": "…"}    DELETE /documents/ID
 *   POST /search {"vector": […], "count": 10}         GET /status
 *
 * It checkpoints every second. After kill -9 it starts with the last checkpoint: the changes of the
 * last second are lost. It answers at once after a start, and loads the rest behind that.
 */
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import { Store } from "pgalloc/data";
import { DIMENSIONS, documentAt, remove, tableOf, upsert } from "./documents.ts";

const { values } = parseArgs({
  options: {
    dir: { type: "string", default: "./documents" },
    port: { type: "string", default: "3000" },
    workers: { type: "string", default: "2" },
  },
});

const store = await Store.open(values.dir, { create: true, checkpointEveryMs: 1000 });
const documents = await store.whenLoaded(() => tableOf(store));
await store.whenLoaded(() => store.map("ids"));

const handle = store.share();
const parts = Number(values.workers);
type Rows = [number, number][];
const waiting = new Map<number, (rows: Rows) => void>();
const workers = Array.from({ length: parts }, (_, part) => {
  const url = new URL("./search-worker.ts", import.meta.url);
  const worker = new Worker(url, { workerData: { handle, part, parts } });
  worker.on("message", ({ id, rows }: { id: number; rows: Rows }) => waiting.get(id)!(rows));
  return worker;
});
let searches = 0;

async function search(query: readonly number[], count: number): Promise<object[]> {
  const found = await Promise.all(
    workers.map((worker) => {
      const id = searches++;
      const answered = new Promise<Rows>((resolve) => waiting.set(id, resolve));
      worker.postMessage({ id, query, count });
      return answered.finally(() => waiting.delete(id));
    }),
  );
  const best = found.flat().sort((a, b) => b[0] - a[0]);
  // A row may have changed since a Worker read it, so this uses its present state.
  const results = await store.whenLoaded(() =>
    best.slice(0, count).flatMap(([, row]) => {
      if (row >= documents.length) return [];
      const { id, text, vector } = documentAt(store, row);
      return [{ id, text, score: vector.reduce((sum, x, i) => sum + x * query[i]!, 0) }];
    }),
  );
  return results.sort((a, b) => b.score - a.score);
}

const isVector = (value: unknown): value is number[] =>
  Array.isArray(value) && value.length === DIMENSIONS && value.every(Number.isFinite);

interface Body {
  readonly vector?: unknown;
  readonly text?: unknown;
  readonly count?: number;
}

async function answer(request: Request): Promise<Response> {
  const { pathname } = new URL(request.url);
  const id = /^\/documents\/(.+)$/.exec(pathname)?.[1];
  if (request.method === "DELETE" && id !== undefined)
    return new Response(null, { status: (await remove(store, id)) ? 204 : 404 });
  if (request.method === "GET" && pathname === "/status")
    return Response.json({ documents: documents.length, isLoading: store.memory.isLoading });
  const body = (request.method === "GET" ? {} : await request.json()) as Body;
  if (!isVector(body.vector))
    return new Response(`vector: ${DIMENSIONS} numbers\n`, { status: 400 });
  if (request.method === "PUT" && id !== undefined) {
    await upsert(store, { id, vector: body.vector, text: String(body.text ?? "") });
    return new Response(null, { status: 204 });
  }
  if (request.method === "POST" && pathname === "/search")
    return Response.json(await search(body.vector, Math.min(body.count ?? 10, 1000)));
  return new Response(null, { status: 404 });
}

const server = Bun.serve({ port: Number(values.port), fetch: answer });
console.log(`listening on port ${server.port}, ${documents.length} documents`);

async function stop(): Promise<void> {
  await server.stop();
  await Promise.all(workers.map((worker) => worker.terminate()));
  await store.close();
  process.exit(0);
}
process.on("SIGTERM", () => void stop());
process.on("SIGINT", () => void stop());
