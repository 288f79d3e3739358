/**
 * The aio queues: reads of random pages of a file in the page cache, so that the bench measures the
 * queue and not the disk. With one read in flight the figure is the round trip (submit, read,
 * notify); with more, the queue's throughput.
 *
 * `nsPerRead` waits like a thread that may block, `nsPerReadAsync` like an event loop. The rival is
 * Node's own reader.
 */
import { closeSync, existsSync, openSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { measure } from "mitata";
import { addressOf } from "../ffi/index.ts";
import {
  type Completions,
  createQueue,
  type Queue,
  type QueueKind,
  uringUnavailableReason,
} from "../src/aio/index.ts";
import { PAGE_SIZE } from "../src/index.ts";
import {
  type Bench,
  budget,
  main,
  number,
  OURS,
  type Params,
  type Run,
  type Sample,
  text,
} from "./support/bench.ts";
import { prepareCache } from "./support/page-cache.ts";
import { Random, stampPages } from "./support/trace.ts";

const FILE_PAGES = 4096;

export const bench: Bench = {
  subject: "aio",
  title: "aio: read a random page of a hot file",
  cases: ({ isSmoke }) => {
    const kinds: QueueKind[] =
      uringUnavailableReason() === null ? ["inline", "workers", "uring"] : ["inline", "workers"];
    return kinds.flatMap((kind) =>
      [1, 32].map((depth) => ({ kind, depth, reads: isSmoke ? 64 : 2_048 })),
    );
  },
  rivals: ({ kind }) => (kind === "workers" ? ["fs.promises"] : []),
  scratch: (directory) => fileIn(directory),
  measure: sample,
};

function fileIn(directory: string): string {
  return join(directory, "aio-pages");
}

async function sample(params: Params, run: Run): Promise<Sample> {
  const path = fileIn(run.directory);
  if (!existsSync(path)) {
    const words = new Uint32Array((FILE_PAGES * PAGE_SIZE) / 4);
    stampPages(words, 0, "dense");
    writeFileSync(path, words);
  }
  prepareCache(path, "hot");
  const random = new Random(1);
  const pages = Uint32Array.from({ length: number(params, "reads") }, () =>
    random.below(FILE_PAGES),
  );
  return run.by === OURS
    ? await byQueue(path, pages, params, run)
    : await byPromises(path, pages, number(params, "depth"), run);
}

/** Sum of the pages' first words: independent of the order in which reads end. */
class Sum {
  private sum = 0;

  add(word: number): void {
    this.sum = (this.sum + word) >>> 0;
  }

  toString(): string {
    return this.sum.toString(16).padStart(8, "0");
  }
}

async function byQueue(
  path: string,
  pages: Uint32Array,
  params: Params,
  run: Run,
): Promise<Sample> {
  const depth = number(params, "depth");
  const words = new Uint32Array(new SharedArrayBuffer(depth * PAGE_SIZE));
  const address = addressOf(words);
  const fd = openSync(path, "r");
  await using queue = createQueue(text(params, "kind") as QueueKind, { capacity: depth });
  const read = (slot: number, page: number) =>
    queue.read(slot, fd, address + slot * PAGE_SIZE, PAGE_SIZE, page * PAGE_SIZE);
  let sum = new Sum();
  const take = ({ count, ids, results }: Completions, next: number): number => {
    for (let i = 0; i < count; i++) {
      if (results[i] !== PAGE_SIZE) throw new Error(`A read of a page ended with ${results[i]}`);
      sum.add(words[(ids[i]! * PAGE_SIZE) / 4]!);
      if (next < pages.length) read(ids[i]!, pages[next++]!);
    }
    return next;
  };
  const begin = () => {
    sum = new Sum();
    const first = Math.min(depth, pages.length);
    for (let slot = 0; slot < first; slot++) read(slot, pages[slot]!);
    return first;
  };
  const blocking = await measure(() => {
    for (let next = begin(); queue.inFlight > 0; ) next = take(queue.wait(1), next);
  }, budget(run));
  const hash = sum.toString();
  const nonBlocking = await measure(async () => {
    for (let next = begin(); queue.inFlight > 0; ) next = take(await queue.waitAsync(1), next);
  }, budget(run));
  if (sum.toString() !== hash) throw new Error(`Blocking reads sum to ${hash}, others to ${sum}`);
  await finish(queue, fd);
  return {
    figures: {
      nsPerRead: blocking.avg / pages.length,
      nsPerReadAsync: nonBlocking.avg / pages.length,
    },
    hash,
  };
}

/** No read is in flight when the file is closed. */
async function finish(queue: Queue, fd: number): Promise<void> {
  await queue.destroy();
  closeSync(fd);
}

async function byPromises(
  path: string,
  pages: Uint32Array,
  depth: number,
  run: Run,
): Promise<Sample> {
  await using file = await open(path);
  let sum = new Sum();
  const { avg } = await measure(async () => {
    sum = new Sum();
    let next = 0;
    const lane = async () => {
      const words = new Uint32Array(PAGE_SIZE / 4);
      while (next < pages.length) {
        await file.read(words, 0, PAGE_SIZE, pages[next++]! * PAGE_SIZE);
        sum.add(words[0]!);
      }
    };
    await Promise.all(Array.from({ length: depth }, lane));
  }, budget(run));
  return { figures: { nsPerReadAsync: avg / pages.length }, hash: sum.toString() };
}

if (import.meta.main) await main(bench);
