/**
 * The releaser: gives waste back to the kernel, in turns of the event loop, never on the stack of the call that made it.
 *
 * One thread at a time has undertaken it (Word.Releaser names it, and another takes over if it dies). A turn ends after about
 * 2 ms, and what is punched between two looks at the clock is kept short: it doubles while that is quick and halves when it
 * takes long, up to 128 MiB, since the kernel serializes punches of one file.
 *
 * A program that never returns to its event loop gets no turns. So an allocation that would otherwise make the file grow
 * releases some waste first (`assist`), as a kernel under memory pressure lets those who allocate reclaim.
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
/** Whether the thread that has undertaken it lives is looked at once in so many calls: it costs 10 µs. */
const CALLS_PER_LIVENESS_CHECK = 64;

export class Releaser {
  private readonly words: Int32Array<SharedArrayBuffer>;
  private readonly allocator: Allocator;
  private readonly mapping: Mapping;
  private readonly isLive: () => boolean;
  private readonly batch: WasteBatch;
  private punchPages = 8 * MIN_PUNCH_PAGES;
  private callsLeftToOthers = 0;

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

  /** There is waste: see to it in a later turn, unless some thread does already. */
  schedule(): void {
    // Read plainly first: that this thread has undertaken it only this thread can change, and nearly always it has.
    if (this.words[Word.Releaser] === THREAD_ID) return;
    const owner = Atomics.load(this.words, Word.Releaser);
    const isTaken = owner === 0 ? this.replaceOwner(0) : this.takeOverFrom(owner);
    if (isTaken) setImmediate(() => this.turn());
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
    const more = this.releaseFor(TURN_MS);
    if (more) {
      setImmediate(() => this.turn());
      return;
    }
    reach("releaser: found no waste");
    Atomics.store(this.words, Word.Releaser, 0);
    // What became waste between the last look and the store found a releaser at work, and left it to us. What another
    // thread is releasing is its own affair, unless it died.
    const hasWaste = Atomics.load(this.words, Word.WastePages) > this.words[Word.HeldPages]!;
    if (hasWaste && (this.releaseSome() > 0 || this.allocator.reclaimFromDead())) this.schedule();
  }

  /** Releases for about `milliseconds`. False when there is no waste left to release. */
  private releaseFor(milliseconds: number): boolean {
    const until = performance.now() + milliseconds;
    do {
      if (this.releaseSome() === 0) return false;
    } while (performance.now() < until);
    return true;
  }

  /** True if there is so much waste that an allocation should rather release some than make the file grow. */
  get isBehind(): boolean {
    return this.words[Word.WastePages]! - this.words[Word.HeldPages]! >= MAX_PUNCH_PAGES;
  }

  /** For an allocation of `pages`: releases twice as many at least, so that waste cannot outgrow what is released, or all. */
  assist(pages: number): void {
    const until = performance.now() + TURN_MS;
    let left = 2 * pages;
    do {
      const released = this.releaseSome();
      if (released === 0) return;
      left -= released;
    } while (left > 0 || performance.now() < until);
  }

  /** Releases everything before it returns: for an allocation that would fail otherwise. */
  releaseAll(): void {
    while (this.releaseSome() > 0);
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
    if (took > TURN_MS) this.punchPages = Math.max(this.punchPages / 2, MIN_PUNCH_PAGES);
    else if (took < TURN_MS / 4) this.punchPages = Math.min(2 * this.punchPages, MAX_PUNCH_PAGES);
    return batch.pages;
  }

  /** Resolves when no page is waste, held or being released. */
  async released(): Promise<void> {
    while (this.isLive() && this.words[Word.WastePages]! > 0) {
      if (this.releaseFor(TURN_MS)) await new Promise((resolve) => setImmediate(resolve));
      // What is left is held until its load is done, or being released by another thread, unless that died.
      else if (this.words[Word.WastePages]! > 0 && !this.allocator.reclaimFromDead()) {
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }
}
