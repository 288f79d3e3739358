/**
 * What a service thread does for a file (core/service.ts): everything "in the background" that must
 * not depend on the event loop of one of the program's threads.
 *
 * - It releases waste that stays waste although its thread should have released it by now, because
 *   that thread is blocked or has ended.
 * - It unmaps a destroyed file whose last thread ended without leaving.
 *
 * It looks at the control words and touches the memory only where there is such work, so that it
 * keeps no file mapped.
 */
import { attachCore, type FileCore } from "../core/core.ts";
import { controlOf } from "../core/parts.ts";
import { unmapAbandoned } from "../core/unmap.ts";
import type { MemoryFileHandle } from "../core/options.ts";
import { DestroyedError } from "../errors/errors.ts";
import { Word } from "../control/control.ts";
import { THREAD_ID } from "../threads/thread.ts";

/** Between two looks: while a file has waste, and otherwise. */
const BUSY_MS = 20;
const IDLE_MS = 200;
/** One file after the other has its turn. */
const TURN_MS = 10;

class ServedFile {
  readonly handle: MemoryFileHandle;
  readonly words: Int32Array;
  readonly #ended = Promise.withResolvers<void>();
  #core: FileCore | undefined;
  /** Word.Releases when the file had waste at the last look; -1 if it had none. */
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
      // It changes no page that is in use, so no save has to stop it.
      this.#core ??= attachCore(this.handle, true);
      this.#core.releaser.releaseFor(TURN_MS);
      this.#core.allocator.reclaimFromDead();
      // Its own releases are no sign that another thread is at it.
      this.#releasesSeen = Atomics.load(this.words, Word.Releases);
    } catch (error) {
      // The next look sees it.
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

/** Looks after the file until it is unmapped. */
export async function run(handle: MemoryFileHandle): Promise<void> {
  const file = new ServedFile(handle);
  files.add(file);
  void lookAtFiles();
  await file.ended;
  files.delete(file);
}
