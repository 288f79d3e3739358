/**
 * The releaser: gives waste back to the kernel, in turns of the event loop, never on the stack of the call that made it.
 *
 * One thread at a time has undertaken it (Word.Releaser). A turn ends after about 2 ms, and a punch of committed memory is
 * kept short: its length doubles while punches are quick (uncommitted memory costs next to nothing) and halves when one
 * takes long, up to 128 MiB, since the kernel serializes punches of one file.
 */
import type { Allocator } from "./allocator/allocator.ts";
import type { Mapping } from "./mapping/mapping.ts";
import { Word } from "./shared/control.ts";
import { PAGE_SHIFT, PAGE_SIZE } from "./units.ts";

const MAX_PUNCH_PAGES = (128 * 1024 * 1024) >> PAGE_SHIFT;
const MIN_PUNCH_PAGES = (1024 * 1024) >> PAGE_SHIFT;
const TURN_MS = 2;
const RETRY_MS = 1;

export class Releaser {
  private readonly words: Int32Array<SharedArrayBuffer>;
  private readonly allocator: Allocator;
  private readonly mapping: Mapping;
  private readonly isLive: () => boolean;
  private punchPages = 8 * MIN_PUNCH_PAGES;

  constructor(words: Int32Array<SharedArrayBuffer>, allocator: Allocator, mapping: Mapping, isLive: () => boolean) {
    this.words = words;
    this.allocator = allocator;
    this.mapping = mapping;
    this.isLive = isLive;
  }

  /** There is waste: see to it in a later turn, unless some thread does already. */
  schedule(): void {
    if (Atomics.compareExchange(this.words, Word.Releaser, 0, 1) === 0) setImmediate(() => this.turn());
  }

  private turn(): void {
    if (!this.isLive()) return;
    const more = this.releaseFor(TURN_MS);
    if (more) {
      setImmediate(() => this.turn());
      return;
    }
    Atomics.store(this.words, Word.Releaser, 0);
    // What became waste between the last look and the store found a releaser at work, and left it to us.
    if (this.words[Word.WastePages]! > this.words[Word.HeldPages]!) this.schedule();
  }

  /** Releases for about `milliseconds`. False when there is no waste left to release. */
  private releaseFor(milliseconds: number): boolean {
    const until = performance.now() + milliseconds;
    do {
      if (!this.releaseOnce()) return false;
    } while (performance.now() < until);
    return true;
  }

  /** Releases everything before it returns: for an allocation that would fail otherwise. */
  releaseAll(): void {
    while (this.releaseOnce());
  }

  private releaseOnce(): boolean {
    const { allocator } = this;
    if (!allocator.beginRelease(this.punchPages)) return false;
    const began = performance.now();
    this.mapping.decommit(allocator.decommitStart * PAGE_SIZE, allocator.decommitEnd * PAGE_SIZE);
    const took = performance.now() - began;
    allocator.endRelease();
    if (took < TURN_MS / 4) this.punchPages = Math.min(2 * this.punchPages, MAX_PUNCH_PAGES);
    else if (took > TURN_MS) this.punchPages = Math.max(this.punchPages / 2, MIN_PUNCH_PAGES);
    return true;
  }

  /** Resolves when no page is waste, held or being released. */
  async released(): Promise<void> {
    while (this.isLive() && this.words[Word.WastePages]! > 0) {
      if (this.releaseFor(TURN_MS)) await new Promise((resolve) => setImmediate(resolve));
      // What is left is another thread's to release, or held until its load is done.
      else if (this.words[Word.WastePages]! > 0) await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}
