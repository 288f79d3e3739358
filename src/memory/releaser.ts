/**
 * Releases waste to the kernel in turns of the event loop, never on the stack of the call that made
 * the waste.
 *
 * One thread at a time releases (Word.Releaser); another one takes over if it dies. The service
 * thread (worker/serve-file.ts) releases for a thread that does not reach its next turn. A turn
 * lasts about 2 ms. Holes are punched in short steps, because the kernel serializes punches of one
 * file: a step doubles while it is quick, up to 128 MiB, and halves when it takes long.
 *
 * A program that never returns to its event loop gives no turns. Therefore an allocation that would
 * make the file grow first releases some waste (`assist`), like an allocation that reclaims memory
 * in the kernel.
 */
import type { Allocator } from "../allocator/allocator.ts";
import { WasteBatch } from "../allocator/waste.ts";
import type { Mapping } from "./mapping.ts";
import { Word } from "../control/control.ts";
import { reach } from "../control/interleave.ts";
import { isThreadAlive, THREAD_ID } from "../threads/thread.ts";
import { PAGE_SHIFT, PAGE_SIZE } from "../pages/units.ts";

const MAX_PUNCH_PAGES = (128 * 1024 * 1024) >> PAGE_SHIFT;
const MIN_PUNCH_PAGES = (1024 * 1024) >> PAGE_SHIFT;
const TURN_MS = 2;
const RETRY_MS = 1;
/** Checking that the releasing thread lives takes 10 µs, so only one call in this many does it. */
const CALLS_PER_LIVENESS_CHECK = 64;

export class Releaser {
  private readonly words: Int32Array<SharedArrayBuffer>;
  private readonly allocator: Allocator;
  private readonly mapping: Mapping;
  private readonly isLive: () => boolean;
  private readonly batch: WasteBatch;
  private punchPages = 8 * MIN_PUNCH_PAGES;
  private callsLeftToOthers = 0;

  /** `isLive` returns false once this thread may not touch the file any more. */
  constructor(
    words: Int32Array<SharedArrayBuffer>,
    allocator: Allocator,
    mapping: Mapping,
    isLive: () => boolean,
  ) {
    this.words = words;
    this.allocator = allocator;
    this.mapping = mapping;
    this.batch = new WasteBatch(allocator);
    this.isLive = isLive;
  }

  /** Releases the waste in a later turn of the event loop, unless another thread does. */
  schedule(): void {
    // A plain read first: only this thread changes a word that names this thread.
    if (this.words[Word.Releaser] === THREAD_ID) return;
    const owner = Atomics.load(this.words, Word.Releaser);
    const isTaken = owner === 0 ? this.replaceOwner(0) : this.takeOverFrom(owner);
    if (isTaken) this.scheduleTurn();
  }

  /** By itself, because a function with a closure makes an object in each call. */
  private scheduleTurn(): void {
    setImmediate(() => this.turn());
  }

  private takeOverFrom(owner: number): boolean {
    if (++this.callsLeftToOthers % CALLS_PER_LIVENESS_CHECK !== 0 || isThreadAlive(owner))
      return false;
    return this.replaceOwner(owner);
  }

  private replaceOwner(owner: number): boolean {
    return Atomics.compareExchange(this.words, Word.Releaser, owner, THREAD_ID) === owner;
  }

  private turn(): void {
    if (!this.isLive()) return;
    if (this.releaseFor(TURN_MS)) {
      this.scheduleTurn();
      return;
    }
    reach("releaser: found no waste");
    Atomics.store(this.words, Word.Releaser, 0);
    // A thread that made waste between the last look and the store has left it to this thread.
    // Pages that another living thread is releasing are not taken.
    const hasWaste = Atomics.load(this.words, Word.WastePages) > this.words[Word.HeldPages]!;
    if (hasWaste && (this.releaseSome() > 0 || this.allocator.reclaimFromDead())) this.schedule();
  }

  /** Releases for about `durationMs`. Returns false if there is no waste left to release. */
  releaseFor(durationMs: number): boolean {
    const until = performance.now() + durationMs;
    do {
      if (this.releaseSome() === 0) return false;
    } while (performance.now() < until);
    return true;
  }

  /** True if an allocation should release some of the waste before it makes the file grow. */
  get isBehind(): boolean {
    return this.words[Word.WastePages]! - this.words[Word.HeldPages]! >= MAX_PUNCH_PAGES;
  }

  /** For an allocation of `pages`: releases at least twice as many, so waste cannot grow. */
  assist(pages: number): void {
    const until = performance.now() + TURN_MS;
    let left = 2 * pages;
    do {
      const released = this.releaseSome();
      if (released === 0) return;
      left -= released;
    } while (left > 0 || performance.now() < until);
  }

  /**
   * Releases all waste before it returns, including pages that a dead thread was releasing. True if
   * it released any. Pages that living threads are releasing are left to them.
   */
  releaseAll(): boolean {
    let hasReleased = false;
    do {
      while (this.releaseSome() > 0) hasReleased = true;
    } while (this.words[Word.WastePages]! > 0 && this.allocator.reclaimFromDead());
    return hasReleased;
  }

  /** Releases a batch. Returns how many pages; 0 if there is no waste. */
  private releaseSome(): number {
    const { batch } = this;
    if (!batch.take(this.punchPages)) return 0;
    reach("release: began");
    const began = performance.now();
    for (let i = 0; i < batch.count; i++) {
      this.mapping.decommit(batch.decommitStart(i) * PAGE_SIZE, batch.decommitEnd(i) * PAGE_SIZE);
    }
    const took = performance.now() - began;
    reach("release: decommitted");
    batch.finish();
    this.tellReleased();
    if (took > TURN_MS) this.punchPages = Math.max(this.punchPages / 2, MIN_PUNCH_PAGES);
    else if (took < TURN_MS / 4) this.punchPages = Math.min(2 * this.punchPages, MAX_PUNCH_PAGES);
    return batch.pages;
  }

  /** A waiter adds itself first and then reads `Releases`: it sees this count or is woken. */
  private tellReleased(): void {
    const { words } = this;
    Atomics.add(words, Word.Releases, 1);
    if (Atomics.load(words, Word.ReleaseWaiters) > 0) Atomics.notify(words, Word.Releases);
  }

  /** Resolves when no page is waste, held or being released. @throws the signal's reason */
  async released(signal?: AbortSignal): Promise<void> {
    while (this.isLive() && this.words[Word.WastePages]! > 0) {
      signal?.throwIfAborted();
      if (this.releaseFor(TURN_MS)) await new Promise((resolve) => setImmediate(resolve));
      // The remaining pages are held until their load is done, or a living thread releases them.
      else if (this.words[Word.WastePages]! > 0 && !this.allocator.reclaimFromDead()) {
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }
}
