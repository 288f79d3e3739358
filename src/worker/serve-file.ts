/**
 * The service thread's work for a file (core/service.ts): background work that must not depend on
 * the event loop of one of the program's threads.
 *
 * - It releases waste that the responsible thread should have released by now, because that thread
 *   is blocked or has ended.
 * - It unmaps a destroyed file whose last thread ended without leaving.
 *
 * It reads the control words, and touches the memory only for such work, so it keeps no file
 * mapped.
 */
import { attachCore, type FileCore } from "../core/core.ts";
import { controlOf } from "../core/parts.ts";
import { unmapAbandoned } from "../core/unmap.ts";
import type { MemoryFileHandle } from "../core/options.ts";
import { DestroyedError } from "../errors/errors.ts";
import { Word } from "../control/control.ts";
import { THREAD_ID } from "../threads/thread.ts";

/** The interval between two looks: while a file has waste, and otherwise. */
const BUSY_MS = 20;
const IDLE_MS = 200;
/** Files take turns of this length. */
const TURN_MS = 10;

class ServedFile {
  readonly handle: MemoryFileHandle;
  readonly words: Int32Array;
  readonly #ended = Promise.withResolvers<void>();
  #core: FileCore | undefined;
  /** Word.Releases at the last look, if the file had waste then; else -1. */
  #releasesSeen = -1;

  constructor(handle: MemoryFileHandle) {
    this.handle = handle;
    this.words = controlOf(handle).words;
    Atomics.store(this.words, Word.Service, THREAD_ID);
  }

  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** Returns true if the next look should come soon. Resolves `ended` when the file is unmapped. */
  look(): boolean {
    if (Atomics.load(this.words, Word.Destroyed) !== 0) {
      this.#leave();
      if (unmapAbandoned(this.handle)) this.#ended.resolve();
      return false;
    }
    const waste = Atomics.load(this.words, Word.WastePages);
    if (waste === 0) {
      this.#leave();
      this.#releasesSeen = -1;
      return false;
    }
    const releases = Atomics.load(this.words, Word.Releases);
    const isStuck = releases === this.#releasesSeen;
    this.#releasesSeen = releases;
    if (isStuck) this.#release();
    return true;
  }

  #release(): void {
    try {
      // It changes no page in use, so saves need not stop it.
      this.#core ??= attachCore(this.handle, true);
      this.#core.releaser.releaseFor(TURN_MS);
      this.#core.allocator.reclaimFromDead();
      // Its own releases do not show that another thread releases.
      this.#releasesSeen = Atomics.load(this.words, Word.Releases);
    } catch (error) {
      // The next look handles it.
      if (!(error instanceof DestroyedError)) throw error;
    }
  }

  #leave(): void {
    this.#core?.detach();
    this.#core = undefined;
  }
}

const files = new Set<ServedFile>();
let isLooking = false;

async function lookAtFiles(): Promise<void> {
  if (isLooking) return;
  isLooking = true;
  while (files.size > 0) {
    let isBusy = false;
    for (const file of files) if (file.look()) isBusy = true;
    await Bun.sleep(isBusy ? BUSY_MS : IDLE_MS);
  }
  isLooking = false;
}

/** Serves the file until it is unmapped. */
export async function run(handle: MemoryFileHandle): Promise<void> {
  const file = new ServedFile(handle);
  files.add(file);
  void lookAtFiles();
  await file.ended;
  files.delete(file);
}
