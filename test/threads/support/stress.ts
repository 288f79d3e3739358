/**
 * The stress run: Workers allocate, share, drop, check and wait in one file at once, while it is
 * being restored. Some are terminated at random points. The owner stamps every page. The run finds
 * pages with two owners (another's stamp, or a new page that is not zero), lost wake-ups (a Worker
 * that does not end) and leaks (pages that are not free at the end, except those of dead threads,
 * which their group identifies).
 *
 * The seed decides the choices of each thread and the terminations. The machine decides how the
 * threads interleave.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FileRange, MemoryFile, type MemoryFileHandle, PAGE_SIZE } from "../../../src/index.ts";

export const StressWord = { Stop: 0, Operations: 1 } as const;

export interface StressOrder {
  readonly handle: MemoryFileHandle;
  readonly words: Int32Array;
  readonly owner: number;
  readonly seed: number;
  /** Steps between two looks at Stop. */
  readonly steps: number;
  /** The thread ends by itself after this many steps; 0: when Stop is set. */
  readonly stepsInAll: number;
  readonly restored: { readonly start: number; readonly end: number };
}

export interface StressMessage {
  readonly operations: number;
  readonly error?: string;
}

export interface StressOptions {
  readonly seed: number;
  readonly threads: number;
  readonly runMs: number;
  /** Terminate a Worker about this often; 0: never. */
  readonly killEveryMs: number;
  readonly restoredPages: number;
}

export interface StressReport {
  readonly operations: number;
  readonly threadsStarted: number;
  readonly threadsTerminated: number;
  /** Pages that threads had when they were terminated, dropped for them at the end. */
  readonly pagesOfTheDead: number;
  readonly errors: readonly string[];
  /** The pages that are not free in the end, a line for each run. Empty: no leak. */
  readonly strays: readonly string[];
}

/** A checkpoint whose page p begins with p + 1. */
async function makeCheckpoint(directory: string, pages: number): Promise<FileRange> {
  using file = MemoryFile.create();
  const range = file.allocate(pages * PAGE_SIZE);
  const words = file.view(range, Uint32Array);
  for (let page = 0; page < pages; page++) words[(page * PAGE_SIZE) / 4] = page + 1;
  await file.saveTo(directory);
  return range;
}

/** A run continues until its threads have done this much, within bounds. */
export const OPERATIONS_MIN = 1000;

class StressThread {
  readonly worker = new Worker(new URL("./stress-worker.ts", import.meta.url));
  readonly owner: number;
  /** Its report at the end, or null if it was terminated before. */
  readonly ended: Promise<StressMessage | null>;
  isOver = false;

  constructor(owner: number, order: Omit<StressOrder, "owner">) {
    this.owner = owner;
    this.ended = new Promise((resolve) => {
      const end = (message: StressMessage | null) => {
        this.isOver = true;
        resolve(message);
      };
      this.worker.addEventListener("message", ({ data }: MessageEvent<StressMessage>) => end(data));
      this.worker.addEventListener("close", () => end(null));
    });
    this.worker.postMessage({ ...order, owner } satisfies StressOrder);
  }
}

export async function runStress(options: StressOptions): Promise<StressReport> {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-stress-"));
  try {
    const restored = await makeCheckpoint(directory, options.restoredPages);
    using file = await MemoryFile.loadFrom(directory, { background: true });
    return await new StressRun(options, file, restored).run();
  } finally {
    rmSync(directory, { recursive: true });
  }
}

class StressRun {
  readonly #options: StressOptions;
  readonly #file: MemoryFile;
  readonly #restored: FileRange;
  readonly #words = new Int32Array(new SharedArrayBuffer(8));
  readonly #threads: StressThread[] = [];
  readonly #dead: number[] = [];
  readonly #errors: string[] = [];
  #random: number;
  #nextOwner = 1;

  constructor(options: StressOptions, file: MemoryFile, restored: FileRange) {
    this.#options = options;
    this.#file = file;
    this.#restored = restored;
    this.#random = options.seed | 1;
  }

  #draw(): number {
    this.#random = Math.imul(this.#random, 1664525) + 1013904223;
    return this.#random >>> 0;
  }

  #start(): StressThread {
    const { start, end } = this.#restored;
    const thread = new StressThread(this.#nextOwner++, {
      handle: this.#file.share(),
      words: this.#words,
      seed: this.#draw(),
      steps: 64,
      stepsInAll: 0,
      restored: { start, end },
    });
    this.#threads.push(thread);
    return thread;
  }

  async run(): Promise<StressReport> {
    const { threads, runMs, killEveryMs } = this.#options;
    for (let i = 0; i < threads; i++) this.#start();
    const until = performance.now() + runMs;
    // On a busy machine threads may hardly have started by then.
    const last = until + 20_000;
    const isOver = (now: number) =>
      now > last ||
      (now > until && Atomics.load(this.#words, StressWord.Operations) >= OPERATIONS_MIN);
    while (!isOver(performance.now())) {
      await Bun.sleep(killEveryMs > 0 ? 1 + (this.#draw() % (2 * killEveryMs)) : 20);
      if (killEveryMs > 0) await this.#killOne();
    }
    Atomics.store(this.#words, StressWord.Stop, 1);
    const messages = await Promise.all(this.#threads.map(({ ended }) => ended));
    for (const message of messages)
      if (message?.error !== undefined) this.#errors.push(message.error);
    const pagesOfTheDead = this.#dropOfTheDead();
    await this.#settle();
    return {
      operations: Atomics.load(this.#words, StressWord.Operations),
      threadsStarted: this.#threads.length,
      threadsTerminated: this.#dead.length,
      pagesOfTheDead,
      errors: this.#errors,
      strays: this.#runs()
        .filter(({ text }) => !/ (free|sub-released)$/.test(text))
        .map(({ text }) => text),
    };
  }

  async #killOne(): Promise<void> {
    const living = this.#threads.filter(({ isOver }) => !isOver);
    const victim = living[this.#draw() % living.length];
    if (victim === undefined) return;
    victim.worker.terminate();
    if ((await victim.ended) === null) this.#dead.push(victim.owner);
    this.#start();
  }

  /** Runs of pages: their range, their state as text, and their owner. */
  #runs(): { range: FileRange; text: string; refs: number; group: number }[] {
    return this.#file
      .dump()
      .split("\n")
      .map((text) => {
        const [, start, end] = /^\[(\d+), (\d+)\)/.exec(text)!;
        const [, refs, group] = /refs=(\d+) .*group=(\d+)/.exec(text) ?? ["", "0", "0"];
        return {
          range: new FileRange(Number(start), Number(end)),
          text,
          refs: Number(refs),
          group: Number(group),
        };
      });
  }

  /** Dead threads drop nothing: their group identifies their pages. */
  #dropOfTheDead(): number {
    let pages = 0;
    for (const { range, refs, group } of this.#runs()) {
      if (!this.#dead.includes(group)) continue;
      pages += range.length / PAGE_SIZE;
      for (let i = 0; i < refs; i++) this.#file.decRef(range);
    }
    return pages;
  }

  async #settle(): Promise<void> {
    await this.#file.awaitLoad();
    const words = this.#file.view(this.#restored, Uint32Array);
    for (let page = 0; page < this.#options.restoredPages; page++) {
      if (words[(page * PAGE_SIZE) / 4] !== page + 1)
        this.#errors.push(`Restored page ${page} is not what was saved`);
    }
    this.#file.decRef(this.#restored);
    await this.#file.released();
    if (this.#file.allocatedBytes !== 0)
      this.#errors.push(`${this.#file.allocatedBytes} bytes are allocated in the end`);
    if (this.#file.totalUsageBytes !== 0)
      this.#errors.push(`${this.#file.totalUsageBytes} bytes are committed in the end`);
  }
}
