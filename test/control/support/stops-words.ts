/** The words by which a test starts and ends its Worker, and reads its state. */
import { coreOf } from "../../../src/file/memory-file.ts";
import { type StopOptions, whileStopped } from "../../../src/control/stops.ts";
import type { MemoryFile, RangeLike } from "../../../src/index.ts";

export const StopsWord = { Up: 0, Over: 1, Writes: 2, Progress: 3, Left: 4 } as const;

export type WorkerMode = "turns" | "safepoints" | "stuck" | "readOnly" | "parked" | "idle";

export interface WorkerTask {
  readonly handle: unknown;
  readonly words: Int32Array;
  readonly pages: readonly RangeLike[];
  readonly index: number;
  readonly mode: WorkerMode;
}

export function stopsProgress(words: Int32Array): void {
  Atomics.add(words, StopsWord.Progress, 1);
}

/** A Worker of the other file, and the test's view of it. */
export class StopsWorker {
  readonly words = new Int32Array(new SharedArrayBuffer(32));
  readonly worker = new Worker(new URL("./stops-worker.ts", import.meta.url));
  readonly closed: Promise<void>;

  constructor() {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.worker.addEventListener("close", () => resolve());
    this.closed = promise;
  }

  /** Resolves when it has attached. */
  async start(
    file: MemoryFile,
    mode: WorkerMode,
    pages: readonly RangeLike[] = [],
    index = 0,
  ): Promise<this> {
    const { words } = this;
    const task: WorkerTask = { handle: file.share(), words, pages, index, mode };
    this.worker.postMessage(task);
    while (Atomics.load(words, StopsWord.Up) === 0) await Bun.sleep(1);
    return this;
  }

  get writes(): number {
    return Atomics.load(this.words, StopsWord.Writes);
  }

  get progress(): number {
    return Atomics.load(this.words, StopsWord.Progress);
  }

  /** Makes the Worker end its loop. */
  end(): void {
    Atomics.store(this.words, StopsWord.Over, 1);
    Atomics.notify(this.words, StopsWord.Over);
  }

  async terminate(): Promise<void> {
    this.end();
    this.worker.terminate();
    await this.closed;
  }
}

export function stopAll<T>(
  files: MemoryFile | readonly MemoryFile[],
  work: () => T,
  options: StopOptions = { timeoutMs: 2000 },
): { value: T; pauseMs: number } {
  const list = Array.isArray(files) ? files : [files];
  return whileStopped(
    list.map((file: MemoryFile) => coreOf(file).control),
    options,
    work,
  );
}
