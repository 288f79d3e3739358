/**
 * One thread of the stress run (stress.ts): draws its steps from its own seed, stamps every page
 * that it gets with its number and a count, and checks all its stamps whenever it touches a range
 * again.
 */
import { FileRange, MemoryFile, PAGE_SIZE } from "../../../src/index.ts";
import { type StressMessage, type StressOrder, StressWord } from "./stress.ts";

const scope = globalThis as unknown as {
  onmessage: ((event: { data: StressOrder }) => void) | null;
  postMessage(message: StressMessage): void;
};

const RANGES_MAX = 40;

interface Owned {
  readonly range: FileRange;
  refs: number;
  readonly stamp: number;
}

class Stress {
  readonly #order: StressOrder;
  readonly #file: MemoryFile;
  readonly #owned: Owned[] = [];
  #random: number;
  #nextStamp: number;
  operations = 0;

  constructor(order: StressOrder) {
    this.#order = order;
    this.#file = MemoryFile.attach(order.handle);
    this.#random = order.seed | 1;
    this.#nextStamp = order.owner << 24;
  }

  /** xorshift32 */
  #below(limit: number): number {
    let x = this.#random;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#random = x;
    return (x >>> 0) % limit;
  }

  step(): void {
    const choice = this.#below(100);
    this.operations++;
    Atomics.add(this.#order.words, StressWord.Operations, 1);
    if (this.#owned.length === 0 || (choice < 40 && this.#owned.length < RANGES_MAX))
      this.#allocate();
    else if (choice < 50) this.#incRef();
    else if (choice < 80) this.#decRef();
    else if (choice < 95) this.#check(this.#pick());
    else this.#awaitLoad();
  }

  #pick(): Owned {
    return this.#owned[this.#below(this.#owned.length)]!;
  }

  #allocate(): void {
    const pages = 1 + this.#below(64);
    const range = this.#file.allocate(pages * PAGE_SIZE, {
      group: this.#order.owner,
      mode: this.#below(8) === 0 ? "writePopulate" : "uncommitted",
      direction: this.#below(4) === 0 ? "topDown" : "bottomUp",
    });
    const words = this.#file.view(range, Uint32Array);
    const stamp = this.#nextStamp++;
    for (let page = 0; page < pages; page++) {
      const at = (page * PAGE_SIZE) / 4;
      // New pages are zero: a stamp here would be another owner's.
      if (words[at] !== 0 || words[at + 1] !== 0) {
        throw new Error(
          `Page ${range.start + page * PAGE_SIZE} is not zero but ${words[at]} ${words[at + 1]}`,
        );
      }
      words[at] = stamp;
      words[at + 1] = page + 1;
    }
    this.#owned.push({ range, refs: 1, stamp });
  }

  #check({ range, stamp }: Owned): void {
    const words = this.#file.view(range, Uint32Array);
    for (let page = 0; page < range.length / PAGE_SIZE; page++) {
      const at = (page * PAGE_SIZE) / 4;
      if (words[at] === stamp && words[at + 1] === page + 1) continue;
      throw new Error(
        `Page ${range.start + page * PAGE_SIZE} of ${this.#order.owner} has ${words[at]} ` +
          `${words[at + 1]}, not ${stamp} ${page + 1}`,
      );
    }
  }

  #incRef(): void {
    const owned = this.#pick();
    this.#file.incRef(owned.range);
    owned.refs++;
  }

  #decRef(): void {
    const index = this.#below(this.#owned.length);
    const owned = this.#owned[index]!;
    this.#check(owned);
    this.#file.decRef(owned.range);
    if (--owned.refs === 0) this.#owned.splice(index, 1);
  }

  /** Waits for some restored pages and checks them: page p of the checkpoint has p + 1. */
  #awaitLoad(): void {
    const { restored } = this.#order;
    const pages = restored.end / PAGE_SIZE - restored.start / PAGE_SIZE;
    const first = this.#below(pages);
    const count = Math.min(pages - first, 1 + this.#below(16));
    const range = new FileRange(
      restored.start + first * PAGE_SIZE,
      restored.start + (first + count) * PAGE_SIZE,
    );
    this.#file.awaitLoadSync(range);
    const words = this.#file.view(range, Uint32Array);
    for (let page = 0; page < count; page++) {
      const found = words[(page * PAGE_SIZE) / 4];
      if (found !== first + page + 1) throw new Error(`Restored page ${first + page} has ${found}`);
    }
  }

  finish(): void {
    for (const owned of this.#owned) {
      this.#check(owned);
      for (; owned.refs > 0; owned.refs--) this.#file.decRef(owned.range);
    }
    this.#owned.length = 0;
  }
}

scope.onmessage = ({ data }) => {
  const stress = new Stress(data);
  try {
    while (Atomics.load(data.words, StressWord.Stop) === 0) {
      // A few steps at a time, so that the event loop gets turns, in which waste is released.
      for (let i = 0; i < data.steps; i++) stress.step();
      if (data.stepsInAll > 0 && stress.operations >= data.stepsInAll) break;
    }
    stress.finish();
    scope.postMessage({ operations: stress.operations });
  } catch (error) {
    scope.postMessage({
      operations: stress.operations,
      error: (error as Error).stack ?? String(error),
    });
  }
};
