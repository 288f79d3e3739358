/**
 * CacheWriter: writes contents that a remote reader has read to files of a local cache, and records
 * which blocks are there. The thread that opened the source owns the files (remote/cache-fill.ts).
 *
 * Shared words: `Ended` is 1 once the files are closed, or one could not be written. Then follows a
 * bit for each block of PAGE_SIZE of every content, set when the block has been written.
 */
import { addressOf, writeAt } from "../../ffi/index.ts";
import { PAGE_SIZE } from "../pages/units.ts";

/** Cloneable. */
export interface CacheFiles {
  /** Indexed by content; -1: not cached. */
  readonly fds: readonly number[];
  /** Indexed by content: its first bit. */
  readonly firstBit: readonly number[];
  readonly words: SharedArrayBuffer;
}

const ENDED = 0;
const BITS_AT = 1;

export function createCacheWords(bits: number): SharedArrayBuffer {
  return new SharedArrayBuffer(4 * (BITS_AT + Math.ceil(bits / 32)));
}

export class CacheWriter {
  private readonly files: CacheFiles;
  private readonly words: Int32Array;

  constructor(files: CacheFiles) {
    this.files = files;
    this.words = new Int32Array(files.words);
  }

  get hasEnded(): boolean {
    return Atomics.load(this.words, ENDED) !== 0;
  }

  /** No thread writes any more, once present writers have left. */
  end(): void {
    Atomics.store(this.words, ENDED, 1);
  }

  /** Writes bytes of a content: whole blocks, and the last one of a frame. */
  write(content: number, offset: number, pieces: readonly Uint8Array[]): void {
    const fd = this.files.fds[content] ?? -1;
    if (fd < 0 || this.hasEnded) return;
    let at = offset;
    for (const piece of pieces) {
      const written = writeAt(fd, addressOf(piece), piece.byteLength, at);
      // For example, the disk is full. The load does not need the cache.
      if (written !== piece.byteLength) {
        this.end();
        return;
      }
      at += piece.byteLength;
    }
    this.mark(content, offset, at);
  }

  /** The part of a frame's last block after its end is zero. */
  private mark(content: number, start: number, end: number): void {
    const first = this.files.firstBit[content]!;
    for (let block = Math.ceil(start / PAGE_SIZE); block * PAGE_SIZE < end; block++) {
      const bit = first + block;
      Atomics.or(this.words, BITS_AT + (bit >>> 5), 1 << (bit & 31));
    }
  }

  /** True if the blocks of [start, end) are there. */
  has(content: number, start: number, end: number): boolean {
    const first = this.files.firstBit[content]!;
    for (let block = Math.floor(start / PAGE_SIZE); block * PAGE_SIZE < end; block++) {
      const bit = first + block;
      if ((Atomics.load(this.words, BITS_AT + (bit >>> 5)) & (1 << (bit & 31))) === 0) return false;
    }
    return true;
  }
}
