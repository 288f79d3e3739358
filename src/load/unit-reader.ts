/**
 * Reads the claimed pages of one unit from the pages file into place and checks them: the work that background threads,
 * the demand thread and waiters all do the same way.
 *
 * Where nearly all of a unit is read at once its memory is first made a huge page (populate one page, then
 * MADV_COLLAPSE): allocating 512 small pages costs several times what copying them does. That commits the whole 2 MiB,
 * so a sparser unit is read into small pages. A kernel that refuses is no error; `LoadWord.HugePages` counts successes.
 */
import {
  addressOf,
  bufferAt,
  detach,
  EIO,
  MADV_COLLAPSE,
  MADV_POPULATE_WRITE,
  readAt,
  readVectorAt,
  tryAdvise,
} from "../../ffi/index.ts";
import type { Control } from "../shared/control.ts";
import { reach } from "../shared/seam.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../units.ts";
import { ERROR_CHECKSUM, ERROR_SHORT, type LoadState, LoadWord, PAGES_PER_UNIT, WORDS_PER_UNIT } from "./load-state.ts";

/** Collapse a unit if at least this many of its pages are read: 7/8 wastes at most 256 KiB of zeros. */
const COLLAPSE_PAGES = (PAGES_PER_UNIT * 7) / 8;

export class UnitReader {
  private readonly control: Control;
  private readonly state: LoadState;
  private readonly base: number;
  private readonly fd: number;
  private readonly slot: number;
  private readonly want = new Int32Array(WORDS_PER_UNIT);
  /** struct iovec: address, length; over an ArrayBuffer of its own, which cannot move. */
  private readonly iovecs = new BigUint64Array(new ArrayBuffer(16 * PAGES_PER_UNIT));
  private readonly iovecBytes: Uint8Array;

  constructor(control: Control, state: LoadState, base: number, fd: number) {
    this.control = control;
    this.state = state;
    this.base = base;
    this.fd = fd;
    this.slot = state.takeSlot();
    this.iovecBytes = new Uint8Array(this.iovecs.buffer);
  }

  /** Reads what nobody has started of a unit. */
  readUnit(unit: number): void {
    this.want.fill(-1);
    this.readClaimed(unit);
  }

  /** Reads what nobody has started of pages [start, end), which lie in one unit. Returns how many pages that were. */
  readPages(unit: number, start: number, end: number): number {
    this.want.fill(0);
    for (let page = start; page < end; page++) {
      const bit = page - unit * PAGES_PER_UNIT;
      this.want[bit >>> 5]! |= 1 << (bit & 31);
    }
    return this.readClaimed(unit);
  }

  /** Reads one unit's wanted pages. False if nobody wants any. */
  readDemanded(): boolean {
    const unit = this.state.takeDemand(this.want);
    if (unit < 0) return false;
    Atomics.add(this.state.words, LoadWord.DemandPages, this.readClaimed(unit));
    return true;
  }

  close(): void {
    this.state.freeSlot(this.slot);
  }

  private readClaimed(unit: number): number {
    const { control, state, slot, want } = this;
    const count = state.claim(slot, unit, want);
    if (count === 0) return 0;
    reach("load: claimed");
    // Whoever stops a load sets Stop and then waits for claims to end: one of the two sees the other.
    if (Atomics.load(state.words, LoadWord.Stop) !== 0) {
      state.unclaim(slot, unit, want);
      return 0;
    }
    if (count >= COLLAPSE_PAGES) this.collapse(unit);
    let error = 0;
    const first = unit * PAGES_PER_UNIT;
    let failedPage = first;
    try {
      const result = this.transfer(first);
      error = result === 0 ? this.verify(first) : result;
      if (error !== 0) failedPage = this.failedPage;
    } catch (thrown) {
      state.fail(control, slot, unit, want, count, EIO, first);
      throw thrown;
    }
    reach("load: bytes in place");
    if (error === 0) state.publish(control, slot, unit, want, count);
    else state.fail(control, slot, unit, want, count, error, failedPage);
    return count;
  }

  private failedPage = 0;

  private collapse(unit: number): void {
    const address = this.base + unit * HUGE_PAGE_SIZE;
    if (tryAdvise(address, PAGE_SIZE, MADV_POPULATE_WRITE) !== 0) return;
    if (tryAdvise(address, HUGE_PAGE_SIZE, MADV_COLLAPSE) === 0) Atomics.add(this.state.words, LoadWord.HugePages, 1);
  }

  /** Reads the claimed pages: file-adjacent pieces in one call. Returns 0 or an error as `fail` takes it. */
  private transfer(first: number): number {
    let pieces = 0;
    let bytes = 0;
    let offset = 0;
    const flush = (): number => {
      if (pieces === 0) return 0;
      const result = this.readPieces(pieces, bytes, offset);
      pieces = 0;
      bytes = 0;
      return result;
    };
    let failure = 0;
    this.forEachPiece(first, (page, count, fileOffset) => {
      if (failure !== 0) return;
      if (pieces > 0 && offset + bytes !== fileOffset) failure = flush();
      if (pieces === 0) offset = fileOffset;
      this.failedPage = page;
      this.iovecs[2 * pieces] = BigInt(this.base + page * PAGE_SIZE);
      this.iovecs[2 * pieces + 1] = BigInt(count * PAGE_SIZE);
      pieces++;
      bytes += count * PAGE_SIZE;
    });
    return failure !== 0 ? failure : flush();
  }

  /** One read of `pieces` iovecs; what a short read left over is read piece by piece. */
  private readPieces(pieces: number, bytes: number, offset: number): number {
    Atomics.add(this.state.words, LoadWord.ReadCalls, 1);
    if (pieces > 1) {
      const moved = readVectorAt(this.fd, addressOf(this.iovecBytes), pieces, bytes, offset);
      if (moved === bytes) return 0;
      if (moved < 0) return -moved;
    }
    let at = offset;
    for (let piece = 0; piece < pieces; piece++) {
      const lengthBytes = Number(this.iovecs[2 * piece + 1]);
      const moved = readAt(this.fd, Number(this.iovecs[2 * piece]), lengthBytes, at);
      if (moved < 0) return -moved;
      if (moved < lengthBytes) return ERROR_SHORT;
      at += lengthBytes;
    }
    return 0;
  }

  /** Checks every claimed page against its checksum. */
  private verify(first: number): number {
    const { checksums } = this.state;
    if (checksums.length === 0) return 0;
    const buffer = bufferAt(this.base + first * PAGE_SIZE, this.unitBytes(first));
    let failure = 0;
    this.forEachPiece(first, (page, count, _, content) => {
      for (let i = 0; i < count && failure === 0; i++) {
        const bytes = new Uint8Array(buffer, (page + i - first) * PAGE_SIZE, PAGE_SIZE);
        if (Bun.hash.crc32(bytes) === checksums[content + i]) continue;
        this.failedPage = page + i;
        failure = ERROR_CHECKSUM;
      }
    });
    detach(buffer);
    return failure;
  }

  private unitBytes(first: number): number {
    return Math.min(PAGES_PER_UNIT, this.state.words[LoadWord.SizePages]! - first) * PAGE_SIZE;
  }

  /**
   * Calls `visit(page, count, fileOffset, content)` for each piece of the claimed pages that is one in memory and in the
   * file; `content` is the index of its first checksum.
   */
  private forEachPiece(first: number, visit: (page: number, count: number, fileOffset: number, content: number) => void): void {
    const { state, want } = this;
    const { extentStart, extentLength } = state;
    const end = first + PAGES_PER_UNIT;
    const unit = first / PAGES_PER_UNIT;
    let content = state.firstContentOf(unit);
    for (let extent = state.firstExtentOf(unit); extent < extentStart.length; content += extentLength[extent++]!) {
      const start = extentStart[extent]!;
      if (start >= end) return;
      const stop = Math.min(end, start + extentLength[extent]!);
      for (let page = Math.max(first, start); page < stop; ) {
        const from = nextBit(want, page - first, stop - first, true);
        const to = nextBit(want, from, stop - first, false);
        const skipped = first + from - start;
        if (to > from) {
          const fileOffset = state.offsetOfContent(extent, content) + skipped * PAGE_SIZE;
          visit(first + from, to - from, fileOffset, content + skipped);
        }
        page = first + to;
      }
    }
  }
}

/** The first index in [from, end) whose bit is set (or clear), or `end`. */
function nextBit(bits: Int32Array, from: number, end: number, set: boolean): number {
  let index = from;
  while (index < end) {
    const word = (set ? bits[index >>> 5]! : ~bits[index >>> 5]!) >>> (index & 31);
    if (word !== 0) return Math.min(end, index + 31 - Math.clz32(word & -word));
    index = (index | 31) + 1;
  }
  return end;
}
