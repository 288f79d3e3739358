/**
 * The pages that are known to be committed: one bit each, in memory that all threads of a file
 * share.
 *
 * A page is committed when the kernel spends memory or swap on it. Its user commits it by touching
 * it, which the library does not see. Only the library makes it uncommitted, by decommitting or
 * releasing it. So scans (scan.ts) and allocations that commit set bits, and a set bit stays right
 * until the library clears it. A known page is never scanned again.
 *
 * The race: a scan reads the kernel's state without the lock, one window of pages at a time, and
 * applies the result with the lock. A thread that makes pages uncommitted does so first and then
 * records it here, with the lock. If a scan's window covers the pages, they are also marked as
 * disturbed, and the scan does not count them, because it may have seen them before they went.
 * gVisor decides this with sequence numbers (commitSeq) in each run of pages; one bitmap of a
 * window's size does it without a number in every run.
 *
 * The bitmaps are mapped at the first scan, or at the first allocation that commits. Their memory
 * has the disturbed bits of one window, then the known bits of the file's capacity, touched as
 * needed.
 *
 * Source: memAcct, knownCommitted, commitSeq in gVisor's pgalloc.go.
 */
import { bufferAt, detach, mapAnonymous, unmap } from "../../ffi/index.ts";
import { assert, checksStructures } from "../errors/errors.ts";
import { FREE, SUB_RELEASED, stateOf } from "../allocator/states.ts";
import type { SegmentSet } from "../segment/segment-set.ts";
import { bitCount, forEachWord } from "../pages/bits.ts";
import { type Control, Field, Word } from "../control/control.ts";
import { PAGES_PER_CHUNK } from "../pages/units.ts";

/** Pages that a scan reads between two holds of the lock: a chunk. */
export const WINDOW_PAGES = PAGES_PER_CHUNK;
export const WINDOW_WORDS = WINDOW_PAGES / 32;
const WINDOW_BYTES = WINDOW_PAGES / 8;

export class Commitment {
  private readonly words: Int32Array<SharedArrayBuffer>;
  private readonly fields: Float64Array<SharedArrayBuffer>;
  private views: ArrayBuffer[] = [];
  private disturbed = new Int32Array(0);
  private known = new Int32Array(0);

  constructor(control: Control) {
    this.words = control.words;
    this.fields = control.fields;
  }

  /** Lock held. Pages known to be committed. */
  get knownPages(): number {
    return this.words[Word.KnownPages]!;
  }

  /**
   * True if there are bitmaps. It may be read without the lock after pages were made uncommitted: a
   * scan that saw them committed had made the bitmaps before that.
   */
  get isActive(): boolean {
    return Atomics.load(this.words, Word.AccountingActive) !== 0;
  }

  /** Lock held. Makes the bitmaps unless another thread has. @throws {SyscallError} */
  activate(): void {
    if (this.isActive) return;
    this.fields[Field.AccountingAddress] = mapAnonymous(this.mappedBytes);
    this.words[Word.WindowStart] = -1;
    Atomics.store(this.words, Word.AccountingActive, 1);
  }

  private get mappedBytes(): number {
    return WINDOW_BYTES + this.fields[Field.CapacityPages]! / 8;
  }

  /** Lock held. Makes this thread's views reach as far as the file. */
  private useViews(): void {
    const pages = this.words[Word.SizePages]!;
    if (this.known.length * 32 >= pages) return;
    this.detach();
    const address = this.fields[Field.AccountingAddress]!;
    this.views = [bufferAt(address, WINDOW_BYTES), bufferAt(address + WINDOW_BYTES, pages / 8)];
    this.disturbed = new Int32Array(this.views[0]!);
    this.known = new Int32Array(this.views[1]!);
  }

  /** Lock held, active. The library has committed the pages. */
  markCommitted(start: number, end: number): void {
    this.useViews();
    const { known } = this;
    let fresh = 0;
    forEachWord(start, end, (word, mask) => {
      fresh += bitCount(mask & ~known[word]!);
      known[word]! |= mask;
    });
    this.words[Word.KnownPages]! += fresh;
    this.expectCount();
  }

  /** Lock held, active. The pages were made uncommitted before this call. */
  markUncommitted(start: number, end: number): void {
    this.useViews();
    const { known, disturbed } = this;
    let gone = 0;
    forEachWord(start, end, (word, mask) => {
      const before = known[word]!;
      if (before === 0) return;
      gone += bitCount(before & mask);
      known[word] = before & ~mask;
    });
    this.words[Word.KnownPages]! -= gone;
    this.expectCount();
    const first = this.words[Word.WindowStart]!;
    if (first < 0) return;
    const from = Math.max(start, first) - first;
    const to = Math.min(end, first + WINDOW_PAGES) - first;
    forEachWord(from, to, (word, mask) => {
      disturbed[word]! |= mask;
    });
  }

  /** Lock held, active. Clears all bits, because they cannot be right. */
  forget(): void {
    this.useViews();
    this.known.fill(0);
    this.words[Word.KnownPages] = 0;
  }

  /**
   * Lock held, active. Copies the known bits of the window that begins at `first`, before a scan
   * reads it.
   */
  openWindow(first: number, known: Int32Array): void {
    this.useViews();
    known.set(this.known.subarray(first / 32, first / 32 + WINDOW_WORDS));
    this.disturbed.fill(0);
    this.words[Word.WindowStart] = first;
  }

  /**
   * Lock held. Counts the pages that a scan saw committed in its window, except those that were
   * disturbed since it was opened.
   */
  closeWindow(seen: Int32Array): void {
    this.useViews();
    const { known, disturbed } = this;
    const first = this.words[Word.WindowStart]!;
    const size = this.words[Word.SizePages]!;
    assert(first >= 0 && first < size, () => `a scan's window at page ${first} of ${size}`);
    const base = first / 32;
    let fresh = 0;
    for (let word = 0; word < WINDOW_WORDS; word++) {
      if (seen[word] === 0) continue;
      const bits = seen[word]! & ~disturbed[word]! & ~known[base + word]!;
      if (bits === 0) continue;
      known[base + word]! |= bits;
      fresh += bitCount(bits);
    }
    this.words[Word.KnownPages]! += fresh;
    this.words[Word.WindowStart] = -1;
    this.expectCount();
  }

  /** Lock held. O(1). */
  private expectCount(): void {
    const known = this.words[Word.KnownPages]!;
    const size = this.words[Word.SizePages]!;
    assert(
      known >= 0 && known <= size,
      () => `${known} of ${size} pages are noted as known to be committed`,
    );
  }

  /** @throws {InvariantError} unless as many pages are known as are noted. O(size) */
  private check(): void {
    const counted = this.countKnown(0, this.words[Word.SizePages]!);
    const noted = this.words[Word.KnownPages]!;
    assert(counted === noted, () => `${counted} pages are known to be committed, ${noted} noted`);
  }

  /** Lock held, active. How many pages of [start, end) are known to be committed. */
  countKnown(start: number, end: number): number {
    this.useViews();
    const { known } = this;
    let count = 0;
    const first = start >>> 5;
    const last = (end - 1) >>> 5;
    const head = -1 << (start & 31);
    const tail = -1 >>> (31 - ((end - 1) & 31));
    if (first === last) return bitCount(known[first]! & head & tail);
    for (let word = first + 1; word < last; word++) count += bitCount(known[word]!);
    return count + bitCount(known[first]! & head) + bitCount(known[last]! & tail);
  }

  /** Lock held. A thread died during a change: counts again, and marks free pages uncommitted. */
  recover(set: SegmentSet): void {
    if (!this.isActive) return;
    this.words[Word.KnownPages] = this.countKnown(0, set.size);
    for (let run = 0; run < set.size; run = set.endOf(run)) {
      const state = stateOf(set.tagAt(run));
      if (state === FREE || state === SUB_RELEASED) this.markUncommitted(run, set.endOf(run));
    }
  }

  /** Detaches this thread's views for good: afterwards only `unmap` may be called. */
  leave(): void {
    const isOwn = this.words[Word.Shared] === 0 && this.words[Word.Failed] === 0;
    if (checksStructures && isOwn && this.isActive) this.check();
    this.detach();
  }

  private detach(): void {
    for (const buffer of this.views) detach(buffer);
    this.views = [];
  }

  /** Precondition: no thread has views any more. */
  unmap(): void {
    if (this.isActive) unmap(this.fields[Field.AccountingAddress]!, this.mappedBytes);
  }
}
