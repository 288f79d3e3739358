/**
 * Overlay: pages of a file whose memory is a private mapping of a page file, laid over the memory
 * file's mapping. Contents come from the page cache without a copy; a write copies its page.
 *
 * A page's states, and the cause of each change:
 *
 *     memory file ── restore maps a page file ──> mapped ── a program writes ──> private copy
 *          ^                                        │                               │
 *          └── the page is freed or decommitted ────┴───────────────────────────────┘
 *
 * So every new page, and every page that must read as zero, is ordinary memory of the memory file.
 * Each piece that is returned may split a mapping, and the kernel allows a process 65,530 of them
 * by default. Beyond a budget, a piece is filled with zeros instead: it stays a private copy,
 * counted in `zeroedPages`.
 *
 * All threads of the process share it: a bit for each page, and counters. A bit is set after its
 * page is mapped, and cleared after the memory file is mapped there again. A thread that dies in
 * between leaves a page that counts as mapped and is not; returning it again does no harm.
 */
import {
  mapFileAt,
  mappingsMax,
  seekData,
  seekHole,
  SyscallError,
  zeroMemory,
} from "../../ffi/index.ts";
import type { BaseName } from "../control/base-name.ts";
import { bitCount, forEachWord, setBits } from "../pages/bits.ts";
import { PAGE_SIZE } from "../pages/units.ts";

const OverlayWord = {
  /** Mapped pages. Atomics. */
  Pages: 0,
  /** Mappings that the overlay has made, at most. Atomics. */
  Pieces: 1,
  /** Pages that were filled with zeros instead of being returned. Atomics. */
  ZeroedPages: 2,
  /** 1 once pages were handed out without a check. Written before sharing. */
  Unchecked: 3,
  /**
   * The name of a checkpoint that has the mapped pages as they are. The two words change one after
   * the other; in between they name no checkpoint.
   */
  BaseLow: 4,
  BaseHigh: 5,
  /** Files that share the budget of mappings. Written before sharing. */
  Files: 6,
} as const;
const HEADER_WORDS = 7;

/**
 * The part of the mappings that the kernel allows a process (vm.max_map_count) for the files of one
 * restore. Other files, the program and its libraries need the rest.
 */
const SHARE = 1 / 4;
let allowed: number | undefined;

/**
 * Shared memory for an overlay of `pages` pages. `files`: those of the restore, which share its
 * budget of mappings.
 */
export function createOverlay(pages: number, files: number): SharedArrayBuffer {
  const buffer = new SharedArrayBuffer(4 * (HEADER_WORDS + Math.ceil(pages / 32)));
  new Int32Array(buffer)[OverlayWord.Files] = files;
  return buffer;
}

/** The memory file under an overlay. */
export interface OverlaidMemory {
  readonly fd: number;
  /** Address of page 0. */
  readonly base: number;
}

export class Overlay {
  private readonly words: Int32Array;
  private readonly bits: Int32Array;
  private readonly memory: OverlaidMemory;

  constructor(buffer: SharedArrayBuffer, memory: OverlaidMemory) {
    this.words = new Int32Array(buffer, 0, HEADER_WORDS);
    this.bits = new Int32Array(buffer, 4 * HEADER_WORDS);
    this.memory = memory;
  }

  /** Mapped pages, private copies among them. */
  get pages(): number {
    return Atomics.load(this.words, OverlayWord.Pages);
  }

  /** Address of page 0. */
  get base(): number {
    return this.memory.base;
  }

  get zeroedPages(): number {
    return Atomics.load(this.words, OverlayWord.ZeroedPages);
  }

  /** True if pages were handed out without a check: they may not be present. */
  get isUnchecked(): boolean {
    return this.words[OverlayWord.Unchecked] !== 0;
  }

  /** The most mappings of the file. */
  get piecesMax(): number {
    allowed ??= Math.floor(SHARE * mappingsMax());
    return Math.floor(allowed / this.words[OverlayWord.Files]!);
  }

  /** Called before the overlay is shared. */
  noteUnchecked(): void {
    this.words[OverlayWord.Unchecked] = 1;
  }

  /** True if that checkpoint has the contents of all mapped pages that nothing has written. */
  hasBase([low, high]: BaseName): boolean {
    const { words } = this;
    return (
      Atomics.load(words, OverlayWord.BaseLow) === low &&
      Atomics.load(words, OverlayWord.BaseHigh) === high
    );
  }

  /** That checkpoint has them now: it was restored, or saved last. */
  setBase([low, high]: BaseName): void {
    Atomics.store(this.words, OverlayWord.BaseLow, low);
    Atomics.store(this.words, OverlayWord.BaseHigh, high);
  }

  /**
   * Maps bytes of a page file over pages [start, end): calls `mapAt` with the address of the pages.
   * Precondition: the memory file is mapped there, and no other thread has the overlay yet.
   *
   * @throws the error of `mapAt`, which leaves the memory unchanged
   */
  map(start: number, end: number, mapAt: (address: number) => void): void {
    mapAt(this.memory.base + start * PAGE_SIZE);
    setBits(this.bits, start, end);
    Atomics.add(this.words, OverlayWord.Pages, end - start);
    Atomics.add(this.words, OverlayWord.Pieces, 2);
  }

  isMapped(page: number): boolean {
    const word = page >>> 5;
    return word < this.bits.length && (Atomics.load(this.bits, word) & (1 << (page & 31))) !== 0;
  }

  /** The first page of [page, end) whose mapped bit equals `isMapped`, or `end`. */
  next(page: number, end: number, isMapped: boolean): number {
    for (let at = page; at < end; ) {
      const word = at >>> 5;
      if (word >= this.bits.length) return isMapped ? end : at;
      const bits = Atomics.load(this.bits, word);
      const found = (isMapped ? bits : ~bits) & (-1 << (at & 31));
      if (found !== 0) return Math.min(end, (word << 5) | (31 - Math.clz32(found & -found)));
      at = (word + 1) << 5;
    }
    return end;
  }

  /**
   * The first pages at or after `page` that have memory, as half-open bounds; none at or after
   * `end`. They are mapped, or have memory in the memory file.
   */
  findData(page: number, end: number): { start: number; end: number } {
    const mapped = this.next(page, end, true);
    if (mapped === page) return { start: page, end: this.next(page, end, false) };
    const { fd } = this.memory;
    const offset = seekData(fd, page * PAGE_SIZE);
    const data = offset < 0 ? end : Math.floor(offset / PAGE_SIZE);
    if (data >= mapped) return { start: mapped, end: this.next(mapped, end, false) };
    // On a file system with smaller blocks, a hole may begin inside a page.
    const hole = Math.ceil(seekHole(fd, offset) / PAGE_SIZE);
    return { start: data, end: Math.max(data, Math.min(mapped, hole)) };
  }

  /** Returns mapped pages of [start, end): they read as zero. */
  release(start: number, end: number): void {
    if (this.pages === 0) return;
    for (let from = this.next(start, end, true); from < end; ) {
      const to = this.next(from, end, false);
      this.releasePiece(from, to);
      from = this.next(to, end, true);
    }
  }

  private releasePiece(start: number, end: number): void {
    const { fd, base } = this.memory;
    const address = base + start * PAGE_SIZE;
    if (!this.remap(address, (end - start) * PAGE_SIZE, fd, start * PAGE_SIZE)) {
      zeroMemory(address, (end - start) * PAGE_SIZE);
      Atomics.add(this.words, OverlayWord.ZeroedPages, end - start);
      return;
    }
    let cleared = 0;
    forEachWord(start, end, (word, mask) => {
      cleared += bitCount(mask & Atomics.and(this.bits, word, ~mask));
    });
    Atomics.sub(this.words, OverlayWord.Pages, cleared);
  }

  /** False if the process has too many mappings. */
  private remap(address: number, lengthBytes: number, fd: number, offset: number): boolean {
    if (Atomics.add(this.words, OverlayWord.Pieces, 2) + 2 <= this.piecesMax) {
      try {
        mapFileAt(address, lengthBytes, fd, offset);
        return true;
      } catch (error) {
        // The kernel allows no more mappings. The pages are unchanged.
        if (!(error instanceof SyscallError) || error.code !== "ENOMEM") throw error;
      }
    }
    Atomics.sub(this.words, OverlayWord.Pieces, 2);
    return false;
  }
}
