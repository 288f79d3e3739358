/**
 * The service of examples/documents as a whole: vectors of 128 numbers and texts of 600 characters,
 * in a store, in JavaScript objects that are serialized to save them, in lmdb, in bun:sqlite.
 * "checkpointMs" makes 1 % of changes durable. "coldStartMs" is from the start of a process to its
 * first document: ours as deployed (docs/deploying.md), "coldStartFromSourcesMs" run by `bun`.
 * "residentMib" is the memory of the process at the end.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { DIMENSIONS, type Document, openDocuments } from "./peers/documents.ts";
import { hasLmdb } from "./peers/maps.ts";
import { type Bench, main, number, type Params, type Run, type Sample } from "./support/bench.ts";
import { firstAnswer } from "./support/first-answer.ts";
import { median } from "./support/statistics.ts";

const TEXT_LENGTH = 600;
const BLOCK = 1000;
const ROUNDS = 3;
const GETS = 50_000;

export const bench: Bench = {
  subject: "documents",
  title: "service for documents with vectors",
  cases: ({ isSmoke }) => [{ documents: isSmoke ? 200 : 100_000 }],
  rivals: () => ["Map", ...(hasLmdb() ? ["lmdb"] : []), "sqlite"],
  measure: sample,
};

const idOf = (index: number) => `document-${index}`;

function documentOf(index: number, version: number): Document {
  const vector = new Float32Array(DIMENSIONS);
  for (let i = 0; i < DIMENSIONS; i++) vector[i] = ((index * 31 + i * 17 + version) % 101) / 101;
  return { vector, text: `${index} ${version} `.padEnd(TEXT_LENGTH, "lorem ipsum ") };
}

function time(work: () => void): number {
  const began = performance.now();
  work();
  return performance.now() - began;
}

async function timeAsync(work: () => Promise<void>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

async function sample(params: Params, run: Run): Promise<Sample> {
  const count = number(params, "documents");
  const directory = join(run.directory, `documents-${run.by}-${process.pid}`);
  const service = await openDocuments(run.by, directory);
  const upsert = (indexes: readonly number[], version: number) => {
    const documents = indexes.map((index) => [idOf(index), documentOf(index, version)] as const);
    return time(() => service.upsertAll(documents));
  };
  let fillMs = 0;
  for (let first = 0; first < count; first += BLOCK) {
    const length = Math.min(BLOCK, count - first);
    fillMs += upsert(
      Array.from({ length }, (_, i) => first + i),
      0,
    );
  }
  await service.checkpoint();
  const some = Array.from({ length: Math.ceil(count / 100) }, (_, i) => (i * 7919) % count);
  const upsertMs = upsert(some, 1);
  const checkpointMs = await timeAsync(() => service.checkpoint());
  const ids = Array.from({ length: Math.min(GETS, count) }, (_, i) => idOf((i * 7907) % count));
  let characters = 0;
  const getMs = median(
    Array.from({ length: ROUNDS }, () =>
      time(() => {
        characters = 0;
        for (const id of ids) characters += service.get(id)!.text.length;
      }),
    ),
  );
  const query = documentOf(5, 1).vector;
  let best = 0;
  const scanMs = median(
    Array.from({ length: ROUNDS }, () =>
      time(() => {
        best = service.scan(query);
      }),
    ),
  );
  const gcMs = median(Array.from({ length: ROUNDS }, () => time(() => Bun.gc(true))));
  const residentMib = process.memoryUsage().rss / 2 ** 20;
  await service.close();
  const program = join(import.meta.dir, "peers/first-document.ts");
  const start = firstAnswer(run, program, [run.by, directory, idOf(3)], TEXT_LENGTH);
  rmSync(directory, { recursive: true, force: true });
  for (const end of [".v8", ".sqlite", ".sqlite-wal", ".sqlite-shm"])
    rmSync(`${directory}${end}`, { force: true });
  return {
    figures: {
      usPerNew: (1000 * fillMs) / count,
      usPerUpsert: (1000 * upsertMs) / some.length,
      usPerGet: (1000 * getMs) / ids.length,
      scanMs,
      checkpointMs,
      coldStartMs: start.deployedMs,
      coldStartFromSourcesMs: start.fromSourcesMs,
      gcMs,
      residentMib,
    },
    hash: Bun.hash(`${characters} ${best}`).toString(16),
  };
}

if (import.meta.main) await main(bench);
