/** A thread of the fuzzer: random changes to one file, compared with a model of its own pages. */
import { HUGE_PAGE_SIZE, MemoryFile, PAGE_SIZE } from "../../../src/index.ts";
import { type FuzzOrder, type FuzzReport, FuzzWord, MAILBOX_WORDS } from "./fuzz.ts";

/** The part of a Worker's global scope that is used here. */
const scope = globalThis as unknown as {
  onmessage: ((event: { data: FuzzOrder }) => void) | null;
  postMessage(message: FuzzReport): void;
};

const MODES = ["uncommitted", "callerIndirectCommit", "commit", "writePopulate"] as const;
const HALF_PAGES = HUGE_PAGE_SIZE / PAGE_SIZE / 2;
const MAX_PAGES = 4096;

class FuzzThread {
  readonly #file: MemoryFile;
  readonly #order: FuzzOrder;
  /** The byte of each page. */
  readonly #pages = new Map<number, number>();
  #random: number;
  #steps = 0;

  constructor(order: FuzzOrder) {
    this.#order = order;
    this.#file = MemoryFile.attach(order.handle);
    this.#random = order.seed | 1;
  }

  #draw(below: number): number {
    this.#random = (Math.imul(this.#random, 1664525) + 1013904223) | 0;
    return (this.#random >>> 8) % below;
  }

  async run(): Promise<FuzzReport> {
    const { words } = this.#order;
    try {
      while (Atomics.load(words, FuzzWord.Stop) === 0) {
        for (let i = 0; i < 20; i++) this.#step();
        await new Promise((resolve) => setImmediate(resolve));
        if (this.#draw(8) === 0) await this.#file.released();
      }
      for (const page of this.#pages.keys()) this.#check(page);
      return { pages: [...this.#pages], steps: this.#steps };
    } catch (error) {
      return { pages: [], steps: this.#steps, error: String((error as Error).stack) };
    }
  }

  #step(): void {
    this.#steps++;
    this.#receive();
    const kind = this.#draw(10);
    if (kind < 3 && this.#pages.size < MAX_PAGES) this.#allocate();
    else if (kind < 7) this.#drop();
    else if (kind === 7) this.#decommit();
    else if (kind === 8) this.#give();
    else for (const page of this.#some()) this.#check(page);
  }

  #view(page: number): Uint8Array {
    return this.#file.view({ start: page * PAGE_SIZE, end: (page + 1) * PAGE_SIZE });
  }

  #check(page: number): void {
    const view = this.#view(page);
    const byte = this.#pages.get(page)!;
    if (view[0] !== byte || view[PAGE_SIZE - 1] !== byte)
      throw new Error(`Page ${page} holds ${view[0]} and ${view[PAGE_SIZE - 1]}, not ${byte}`);
  }

  #allocate(): void {
    const huge = this.#draw(2) === 0;
    const mode = MODES[this.#draw(MODES.length)]!;
    const lengthBytes = huge ? HUGE_PAGE_SIZE : PAGE_SIZE * (1 + this.#draw(40));
    const range = this.#file.allocate(lengthBytes, { huge, mode, group: this.#order.owner });
    for (let page = range.start / PAGE_SIZE; page < range.end / PAGE_SIZE; page++) {
      const view = this.#view(page);
      if (view[0] !== 0 || view[PAGE_SIZE - 1] !== 0)
        throw new Error(`New page ${page} is not zero`);
      view.fill(this.#order.owner);
      this.#pages.set(page, this.#order.owner);
    }
  }

  /** A run of neighbours, from a random page of this thread on. */
  #some(): number[] {
    const first = [...this.#pages.keys()][this.#draw(Math.max(1, this.#pages.size))];
    if (first === undefined) return [];
    const most = this.#draw(2) === 0 ? HALF_PAGES : 1 + this.#draw(20);
    const run: number[] = [];
    for (let page = first; this.#pages.has(page) && run.length < most; page++) run.push(page);
    return run;
  }

  #drop(): void {
    const run = this.#some();
    if (run.length === 0) return;
    for (const page of run) this.#check(page);
    for (const page of run) this.#pages.delete(page);
    this.#file.decRef({ start: run[0]! * PAGE_SIZE, end: (run.at(-1)! + 1) * PAGE_SIZE });
  }

  #decommit(): void {
    const run = this.#some();
    if (run.length === 0) return;
    this.#file.decommit({ start: run[0]! * PAGE_SIZE, end: (run.at(-1)! + 1) * PAGE_SIZE });
    for (const page of run) this.#pages.set(page, 0);
  }

  /** Gives a run to the next thread, so that halves of a huge page have two owners. */
  #give(): void {
    const { words, owner, threads } = this.#order;
    const at = FuzzWord.Mail + (owner % threads) * MAILBOX_WORDS;
    if (Atomics.compareExchange(words, at, 0, 1) !== 0) return;
    const first = this.#some()[0];
    const byte = first === undefined ? undefined : this.#pages.get(first);
    if (first === undefined || byte === undefined) {
      Atomics.store(words, at, 0);
      return;
    }
    let end = first;
    while (this.#pages.get(end) === byte && end - first < HALF_PAGES) this.#pages.delete(end++);
    words[at + 1] = first;
    words[at + 2] = end;
    words[at + 3] = byte;
    Atomics.store(words, at, 2);
  }

  #receive(): void {
    const { words, owner } = this.#order;
    const at = FuzzWord.Mail + (owner - 1) * MAILBOX_WORDS;
    if (Atomics.load(words, at) !== 2) return;
    for (let page = words[at + 1]!; page < words[at + 2]!; page++)
      this.#pages.set(page, words[at + 3]!);
    Atomics.store(words, at, 0);
  }
}

scope.onmessage = async ({ data }) => {
  scope.postMessage(await new FuzzThread(data).run());
};
