/**
 * The service thread's work for a file (core/service.ts): background work that must not depend on
 * the event loop of one of the program's threads.
 *
 * - It releases waste that the responsible thread should have released by now, because that thread
 *   is blocked or has ended.
 * - It reads for a load that makes no progress: the thread that reads inline, or that would start
 *   another thread in place of a dead one, is blocked. It ends the load's hold of the source.
 * - It unmaps a destroyed file whose last thread ended without leaving.
 *
 * It reads the control words, and touches the memory only for such work, so it keeps no file
 * mapped.
 */
import { attachCore, type FileCore } from "../core/core.ts";
import { controlOf } from "../core/parts.ts";
import { unmapAbandoned } from "../core/unmap.ts";
import type { MemoryFileHandle } from "../core/options.ts";
import { SyscallError } from "../../ffi/index.ts";
import { DestroyedError, TooManyThreadsError } from "../errors/errors.ts";
import { LoadWord } from "../load/load-tables.ts";
import { Word } from "../control/control.ts";
import { THREAD_ID } from "../threads/thread.ts";

/** A load is stuck if no page arrives for so long. */
const STUCK_MS = 200;
/** The interval between two looks: while a file has waste, and otherwise. */
const BUSY_MS = 20;
const IDLE_MS = 200;
/** Files take turns of this length. */
const TURN_MS = 10;

class ServedFile {
  readonly handle: MemoryFileHandle;
  readonly words: Int32Array;
  /** LoadWord's, if the file was restored. */
  readonly #load: Int32Array | undefined;
  readonly #ended = Promise.withResolvers<void>();
  #core: FileCore | undefined;
  /** Word.Releases at the last look, if the file had waste then; else -1. */
  #releasesSeen = -1;
  /** LoadWord.MissingPages, and since when it has this value. */
  #missing = -1;
  #missingSinceMs = 0;
  #isReading = false;

  constructor(handle: MemoryFileHandle) {
    this.handle = handle;
    this.words = controlOf(handle).words;
    this.#load = handle.load === null ? undefined : new Int32Array(handle.load.tables);
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
    if (this.#isLoadStuck()) void this.#read();
    if (Atomics.load(this.words, Word.WastePages) === 0) {
      this.#leave();
      this.#releasesSeen = -1;
      return false;
    }
    if (this.#isReleaseStuck()) this.#release();
    return true;
  }

  /** True if pages should have been loaded, or the source released, for some time. */
  #isLoadStuck(): boolean {
    const load = this.#load;
    if (load === undefined || this.#isReading) return false;
    const missing = Atomics.load(load, LoadWord.MissingPages);
    const nowMs = performance.now();
    if (missing !== this.#missing) [this.#missing, this.#missingSinceMs] = [missing, nowMs];
    if (nowMs < this.#missingSinceMs + STUCK_MS || load[LoadWord.Stop] !== 0) return false;
    return missing === 0 ? load[LoadWord.Released] === 0 : load[LoadWord.PendingPages]! > 0;
  }

  async #read(): Promise<void> {
    this.#isReading = true;
    try {
      await this.#attach()?.loader?.help();
    } finally {
      this.#isReading = false;
    }
  }

  #isReleaseStuck(): boolean {
    const releases = Atomics.load(this.words, Word.Releases);
    const isStuck = releases === this.#releasesSeen;
    this.#releasesSeen = releases;
    return isStuck;
  }

  #release(): void {
    const core = this.#attach();
    if (core === undefined) return;
    // It changes no page in use, so saves need not stop it.
    core.releaser.releaseFor(TURN_MS);
    core.allocator.reclaimFromDead();
    // Its own releases do not show that another thread releases.
    this.#releasesSeen = Atomics.load(this.words, Word.Releases);
  }

  /** Undefined if the file cannot be had: the next look tries again. */
  #attach(): FileCore | undefined {
    try {
      this.#core ??= attachCore(this.handle, true);
    } catch (error) {
      const isPassing = error instanceof DestroyedError || error instanceof TooManyThreadsError;
      if (!isPassing && !(error instanceof SyscallError)) throw error;
    }
    return this.#core;
  }

  #leave(): void {
    if (this.#isReading) return;
    // It leaves a destroyed file by itself.
    if (this.#core?.isDetached === false) this.#core.detach();
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
