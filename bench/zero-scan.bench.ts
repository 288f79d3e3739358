/** Finds zero pages, page by page, in memory where every second page has a non-zero last word. */
import { do_not_optimize, measure } from "mitata";
import { bufferAt, detach, isZero, mapAnonymous, unmap } from "../ffi/index.ts";
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
} from "./support/bench.ts";
import { WordHash } from "./support/trace.ts";

const WORDS_PER_PAGE = PAGE_SIZE / 4;

export const bench: Bench = {
  subject: "zero-scan",
  title: "finding zero pages",
  cases: ({ isSmoke }) => (isSmoke ? [2 ** 20] : [2 ** 20, 2 ** 28]).map((bytes) => ({ bytes })),
  rivals: () => ["Int32Array loop", "Buffer.compare"],
  measure: sample,
};

async function sample(params: Params, run: Run): Promise<Sample> {
  const bytes = number(params, "bytes");
  const address = mapAnonymous(bytes);
  const buffer = bufferAt(address, bytes);
  const words = new Int32Array(buffer);
  const pages = bytes / PAGE_SIZE;
  words.fill(1);
  words.fill(0); // Commits every page: reads of untouched pages all see one page of zeros.
  for (let page = 1; page < pages; page += 2) words[(page + 1) * WORDS_PER_PAGE - 1] = page;
  const test = tester(run.by, address, words);
  const count = () => {
    let zeros = 0;
    for (let page = 0; page < pages; page++) if (test(page)) zeros++;
    do_not_optimize(zeros);
  };
  const { avg } = await measure(count, budget(run));
  const hash = new WordHash();
  for (let page = 0; page < pages; page++) hash.add(test(page) ? 1 : 0);
  if (!detach(buffer)) throw new Error("The scanned memory is still in use");
  unmap(address, bytes);
  return {
    figures: { nsPerPage: avg / pages, gibPerSecond: bytes / 2 ** 30 / (avg / 1e9) },
    hash: hash.toString(),
  };
}

function tester(by: string, address: number, words: Int32Array): (page: number) => boolean {
  if (by === OURS) return (page) => isZero(address + page * PAGE_SIZE, PAGE_SIZE);
  if (by === "Buffer.compare") {
    const bytes = new Uint8Array(words.buffer);
    const zeros = new Uint8Array(PAGE_SIZE);
    return (page) =>
      Buffer.compare(bytes.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE), zeros) === 0;
  }
  return (page) => {
    const end = (page + 1) * WORDS_PER_PAGE;
    for (let i = page * WORDS_PER_PAGE; i < end; i++) if (words[i] !== 0) return false;
    return true;
  };
}

if (import.meta.main) await main(bench);
