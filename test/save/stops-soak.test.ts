/**
 * 200 checkpoints of files to which four Workers write, while Workers are terminated and started:
 * none shows a turn that is cut, but that in which a Worker was terminated.
 */
import { expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";

const CHECKPOINTS = 200;
const WORKERS = 4;
const WORDS = PAGE_SIZE / 4;
/** Where syncs cost nothing: what survives a crash is tested elsewhere. */
const MEMORY = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();

class Writers {
  /** The word of each living Worker. */
  readonly words = new Set<number>();
  private readonly workers: { worker: Worker; word: number }[] = [];
  private readonly file: MemoryFile;
  private readonly pages: number;
  private nextWord = 0;

  constructor(file: MemoryFile, pages: number) {
    this.file = file;
    this.pages = pages;
  }

  async start(): Promise<void> {
    const word = this.nextWord++ % WORDS;
    const worker = new Worker(new URL("./support/turn-writer.ts", import.meta.url));
    const up = new Promise((resolve, reject) => {
      worker.addEventListener("message", resolve, { once: true });
      worker.addEventListener("error", reject, { once: true });
    });
    worker.postMessage({ handle: this.file.share(), pages: this.pages, word });
    await up;
    this.workers.push({ worker, word });
    this.words.add(word);
  }

  /** Terminates the oldest, wherever it is. Its turn may be cut, so its word says no more. */
  terminateOne(): void {
    const { worker, word } = this.workers.shift()!;
    this.words.delete(word);
    worker.terminate();
  }

  terminateAll(): void {
    while (this.workers.length > 0) this.terminateOne();
  }
}

/** Throws unless each of the words is the same in all pages. */
function requireWhole(file: MemoryFile, pages: number, words: Iterable<number>): void {
  const memory = file.view({ start: 0, end: pages * PAGE_SIZE }, Int32Array);
  for (const word of words)
    for (let page = 1; page < pages; page++) {
      const [first, other] = [memory[word], memory[page * WORDS + word]];
      if (first !== other)
        throw new Error(`Word ${word} is ${first} in page 0 and ${other} in page ${page}`);
    }
}

test.each([
  { bytes: 24 * PAGE_SIZE, name: "copied at once" },
  { bytes: 4 * 2 ** 20, name: "copied in rounds" },
])(
  "saveTo shows whole turns of Workers that come and go: a file that is $name",
  async ({ bytes }) => {
    const directory = mkdtempSync(join(MEMORY, "pgalloc-stops-"));
    const file = MemoryFile.create();
    const pages = bytes / PAGE_SIZE;
    let writes = 0;
    file.view(file.allocate(bytes)).fill(0);
    const writers = new Writers(file, pages);
    try {
      for (let i = 0; i < WORKERS; i++) await writers.start();
      for (let save = 0; save < CHECKPOINTS / 2; save++) {
        // Those that live when the save begins and are not terminated during it.
        const saving = file.saveTo(directory, { targetPauseMs: 1, stopTimeoutMs: 5000 });
        if (save % 8 === 0) writers.terminateOne();
        const words = [...writers.words];
        await saving;
        using back = await MemoryFile.loadFrom(directory);
        requireWhole(back, pages, words);
        if (save % 8 === 0) await writers.start();
        for (const word of words)
          writes += back.view({ start: 0, end: PAGE_SIZE }, Int32Array)[word]!;
      }
      expect(writes).toBeGreaterThan(CHECKPOINTS);
    } finally {
      writers.terminateAll();
      file.destroy();
      rmSync(directory, { recursive: true });
    }
  },
  120_000,
);
