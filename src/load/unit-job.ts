/** UnitJob: a claimed unit while it is read. Reused for one unit after the other. */
import { mapAnonymous, unmap } from "../../ffi/index.ts";
import { bitCount } from "../pages/bits.ts";
import { HUGE_PAGE_SIZE } from "../pages/units.ts";
import { type ClaimedPages, ERROR_CHECKSUM, ERROR_FRAME } from "./load-state.ts";
import { PAGES_PER_UNIT, WORDS_PER_UNIT } from "./load-tables.ts";
import type { OpenLoad } from "./open-load.ts";
import { READS_MAX, ReadKind, ReadPlan } from "./read-plan.ts";

/** A unit's compressed frames are smaller than its contents; blocks of checksums are 64 KiB. */
const SCRATCH_BYTES = HUGE_PAGE_SIZE + 65_536;
const SCRATCH_ALIGNMENT = 4096;
/** Contents that a network damaged are read this many times in all. */
export const FETCHES_MAX = 3;

export class UnitJob implements ClaimedPages {
  readonly index: number;
  /** Set while the job is in flight, with the slot of its claim. */
  load: OpenLoad | undefined;
  slot = -1;
  unit = 0;
  /** The claimed pages' bits. */
  readonly want = new Int32Array(WORDS_PER_UNIT);
  count = 0;
  readonly plan = new ReadPlan();
  /** Reads that have been added, and that have ended. */
  added = 0;
  ended = 0;
  isHuge = false;
  /** True if a program waits for it. */
  isDemanded = false;
  /** True for a whole unit of the background pass. Set before `begin`. */
  isInOrder = false;
  /**
   * True if checksums are read beside the contents: pages are checked when all reads have ended.
   */
  checksLater = false;
  /** Reads that failed. */
  failedReads = 0;
  /** The first error; a checksum's only if all could be read. */
  error = 0;
  /** Bits of pages that could not be read or are damaged, and of the damaged ones alone. */
  readonly bad = new Int32Array(WORDS_PER_UNIT);
  readonly mismatched = new Int32Array(WORDS_PER_UNIT);
  badCount = 0;
  /** Bits of bad pages that were read, but whose contents are damaged. */
  private readonly damaged = new Int32Array(WORDS_PER_UNIT);
  /** Times that damaged pages have been read again. */
  private refetches = 0;
  /**
   * Scratch memory of reads in flight: the place of each read's part, and the reads that have one.
   */
  readonly scratchAt = new Float64Array(READS_MAX);
  private scratch = 0;
  private scratchUsed = 0;
  private scratchReads = 0;

  constructor(index: number) {
    this.index = index;
  }

  /** Begins with pages that have just been claimed; `want` and `count` say which. */
  begin(load: OpenLoad, slot: number, unit: number, isDemanded: boolean): void {
    this.load = load;
    this.slot = slot;
    this.unit = unit;
    this.isDemanded = isDemanded;
    this.added = this.ended = this.failedReads = this.error = this.badCount = 0;
    this.refetches = 0;
    this.bad.fill(0);
    this.damaged.fill(0);
    this.mismatched.fill(0);
    this.isHuge = this.checksLater = false;
  }

  /**
   * Wants whole blocks of 32 pages: over a network of 30 ms and 100 MB/s, 128 KiB take 1 ms longer
   * than a page, and the program often needs the next one.
   */
  widenToBlocks(): void {
    for (const [word, bits] of this.want.entries()) if (bits !== 0) this.want[word] = -1;
  }

  markBad(error: number, first: number, pages: number): void {
    if (pages > 0 && (this.error === 0 || this.error === ERROR_CHECKSUM)) this.error = error;
    for (let page = first; page < first + pages; page++) {
      if (this.isBad(page)) continue;
      const bit = page - this.unit * PAGES_PER_UNIT;
      this.bad[bit >>> 5]! |= 1 << (bit & 31);
      const mask = 1 << (bit & 31);
      if (error === ERROR_CHECKSUM) this.mismatched[bit >>> 5]! |= mask;
      if (error === ERROR_CHECKSUM || error === ERROR_FRAME) this.damaged[bit >>> 5]! |= mask;
      this.badCount++;
    }
  }

  /**
   * Begins to read damaged pages again: their bits go to `again`, and they are not bad any more.
   * Returns how many; 0 if none is damaged, or they were read again FETCHES_MAX - 1 times.
   * Precondition: all reads have ended.
   */
  takeDamaged(again: Int32Array): number {
    again.set(this.damaged);
    let pages = 0;
    for (const bits of again) pages += bitCount(bits);
    if (pages === 0 || this.refetches === FETCHES_MAX - 1) return 0;
    this.refetches++;
    this.damaged.fill(0);
    this.mismatched.fill(0);
    for (const [i, bits] of again.entries()) this.bad[i]! &= ~bits;
    this.badCount -= pages;
    if (this.badCount === 0) this.error = 0;
    this.added = this.ended = 0;
    this.checksLater = false;
    return pages;
  }

  /** The unit's mapped pages that are in place. */
  goodMappedPages(): number {
    const { plan, badCount } = this;
    if (plan.mappedPages === 0 || badCount === 0) return plan.mappedPages;
    let good = 0;
    for (let op = 0; op < plan.readCount; op++) {
      if (plan.kind[op] !== ReadKind.Mapped || plan.isSplit(op)) continue;
      plan.forEachRun(op, (page, pages) => {
        for (let i = 0; i < pages; i++) if (!this.isBad(page + i)) good++;
      });
    }
    return good;
  }

  isBad(page: number): boolean {
    const bit = page - this.unit * PAGES_PER_UNIT;
    return (this.bad[bit >>> 5]! & (1 << (bit & 31))) !== 0;
  }

  /** Scratch memory for a read, or 0 until other reads have freed theirs. */
  takeScratch(op: number, lengthBytes: number): number {
    if (lengthBytes > SCRATCH_BYTES)
      throw new RangeError(
        `Expected a frame of at most ${SCRATCH_BYTES} bytes, got ${lengthBytes}`,
      );
    if (this.scratchReads === 0) this.scratchUsed = 0;
    const rounded = Math.ceil(lengthBytes / SCRATCH_ALIGNMENT) * SCRATCH_ALIGNMENT;
    if (this.scratchUsed + rounded > SCRATCH_BYTES) return 0;
    if (this.scratch === 0) this.scratch = mapAnonymous(SCRATCH_BYTES);
    const address = this.scratch + this.scratchUsed;
    this.scratchAt[op] = address;
    this.scratchUsed += rounded;
    this.scratchReads++;
    return address;
  }

  freeScratch(): void {
    this.scratchReads--;
  }

  /** Precondition: it has no read in flight. */
  close(): void {
    if (this.scratch !== 0) unmap(this.scratch, SCRATCH_BYTES);
    this.scratch = 0;
    this.scratchReads = 0;
  }
}
