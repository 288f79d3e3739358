/** Ends a Worker at a step of a public call, and looks whether the other threads can go on. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryFile, PAGE_SIZE } from "../../../src/index.ts";
import type { Ending } from "./ended-worker.ts";
import { prepareBase, publicCalls } from "./public-calls.ts";

const STAMP = 9;

/** Calls that a Worker makes, and the steps at which it ends. */
export class Endings implements Disposable {
  readonly #directory = mkdtempSync(join(tmpdir(), "pgalloc-endings-"));

  static async begin(): Promise<Endings> {
    const endings = new Endings();
    await prepareBase(endings.#directory);
    return endings;
  }

  /** The steps of a call. */
  async count(name: string): Promise<number> {
    using file = MemoryFile.create();
    const steps = await this.#run(name, Number.POSITIVE_INFINITY, file);
    if (steps === null) throw new Error(`Expected the Worker to end ${name}`);
    return steps;
  }

  /**
   * Ends a Worker at a step of a call. Then this thread uses the file that both had, and makes the
   * call itself. Returns false if the call had fewer steps.
   */
  async end(name: string, step: number): Promise<boolean> {
    const directory = this.#directory;
    using file = MemoryFile.create();
    const range = file.allocate(8 * PAGE_SIZE);
    file.view(range).fill(STAMP);
    const steps = await this.#run(name, step, file);
    await publicCalls[name]!({ file, directory });
    await file.released();
    if (!file.view(range).every((byte) => byte === STAMP)) throw new Error("Expected own bytes");
    const saved = join(directory, "after");
    await file.saveTo(saved);
    using loaded = await MemoryFile.loadFrom(saved);
    if (!loaded.view(range).every((byte) => byte === STAMP))
      throw new Error("Expected saved bytes");
    return steps === null;
  }

  /** How many steps the call had; null if its thread ended before. */
  async #run(name: string, step: number, file: MemoryFile): Promise<number | null> {
    const worker = new Worker(new URL("./ended-worker.ts", import.meta.url));
    const { promise, resolve, reject } = Promise.withResolvers<number | null>();
    worker.addEventListener("message", ({ data }: MessageEvent<number>) => resolve(data));
    worker.addEventListener("error", (event) => reject(event.error ?? new Error(event.message)));
    worker.addEventListener("close", () => resolve(null));
    const ending: Ending = { name, step, handle: file.share(), directory: this.#directory };
    worker.postMessage(ending);
    try {
      return await promise;
    } finally {
      worker.terminate();
    }
  }

  [Symbol.dispose](): void {
    rmSync(this.#directory, { recursive: true });
  }
}
