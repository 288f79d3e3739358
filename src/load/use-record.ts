/**
 * UseRecord: the pages of a load that the program has used, in blocks in the order of first use.
 * All threads that use the file record in the same shared memory, until the recording is over.
 *
 * A block's bit is set by Atomics.or; the thread that set it takes the next place in the order. A
 * thread that ends in between leaves a place empty.
 */

/** The most blocks that are recorded. */
export const BLOCKS_MAX = 65_536;

const Head = {
  /** Blocks that have been used; some may have found no place. Atomics.add. */
  Count: 0,
  /** 1 once the recording is over. */
  IsOver: 1,
  BlockPages: 2,
  /** Blocks of the file. */
  Blocks: 3,
  /** Used blocks that an earlier start used as well. Atomics.add. */
  Hits: 4,
} as const;

const HEAD_WORDS = 5;
/** After so many blocks, the start is compared with the earlier ones. */
const COMPARED_BLOCKS = 8;
/** It is another one if it has a smaller part in common with them. */
const COMMON_MIN = 1 / 4;

/** The shared memory of a record for a file of `pages` pages. `known`: blocks of earlier starts. */
export function createUses(
  pages: number,
  blockPages: number,
  known: readonly number[] = [],
): SharedArrayBuffer {
  const blocks = Math.ceil(pages / blockPages);
  const bitWords = Math.ceil(blocks / 32);
  const words = HEAD_WORDS + Math.min(blocks, BLOCKS_MAX) + 2 * bitWords;
  const buffer = new SharedArrayBuffer(4 * words);
  const head = new Int32Array(buffer);
  head[Head.BlockPages] = blockPages;
  head[Head.Blocks] = blocks;
  const bits = new Int32Array(buffer, 4 * (words - bitWords));
  for (const block of known) if (block < blocks) bits[block >>> 5]! |= 1 << (block & 31);
  return buffer;
}

/** Opens the record of a load for a thread, if there is one. */
export function openUses({ uses }: { readonly uses: SharedArrayBuffer | null }): UseRecord | null {
  return uses === null ? null : new UseRecord(uses);
}

export class UseRecord {
  readonly blockPages: number;
  private readonly blocks: number;
  private readonly head: Int32Array;
  /** The block at each place, plus 1; 0: none yet. */
  private readonly order: Int32Array;
  private readonly bits: Int32Array;
  /** Blocks of earlier starts. */
  private readonly known: Int32Array;

  constructor(buffer: SharedArrayBuffer) {
    this.head = new Int32Array(buffer, 0, HEAD_WORDS);
    this.blockPages = this.head[Head.BlockPages]!;
    this.blocks = this.head[Head.Blocks]!;
    const places = Math.min(this.blocks, BLOCKS_MAX);
    this.order = new Int32Array(buffer, 4 * HEAD_WORDS, places);
    const bitWords = Math.ceil(this.blocks / 32);
    this.bits = new Int32Array(buffer, 4 * (HEAD_WORDS + places), bitWords);
    this.known = new Int32Array(buffer, 4 * (HEAD_WORDS + places + bitWords));
  }

  get isOver(): boolean {
    return Atomics.load(this.head, Head.IsOver) !== 0;
  }

  /** How many blocks have been used: it grows while the start goes on. */
  get count(): number {
    return Atomics.load(this.head, Head.Count);
  }

  /** True if this start is not like the earlier ones. */
  get isOther(): boolean {
    const { count } = this;
    return count >= COMPARED_BLOCKS && Atomics.load(this.head, Head.Hits) < COMMON_MIN * count;
  }

  end(): void {
    Atomics.store(this.head, Head.IsOver, 1);
  }

  /** The program uses pages [start, end), waits for them, or misses them. */
  note(start: number, end: number): void {
    if (this.isOver) return;
    const { bits, order, blockPages } = this;
    const first = Math.floor(start / blockPages);
    const last = Math.min(this.blocks, Math.ceil(end / blockPages), first + BLOCKS_MAX);
    for (let block = first; block < last; block++) {
      const word = block >>> 5;
      const mask = 1 << (block & 31);
      if ((bits[word]! & mask) !== 0 || (Atomics.or(bits, word, mask) & mask) !== 0) continue;
      if ((this.known[word]! & mask) !== 0) Atomics.add(this.head, Head.Hits, 1);
      const place = Atomics.add(this.head, Head.Count, 1);
      if (place < order.length) Atomics.store(order, place, block + 1);
    }
  }

  has(block: number): boolean {
    return (
      block < this.blocks && (Atomics.load(this.bits, block >>> 5) & (1 << (block & 31))) !== 0
    );
  }

  /** The blocks that were used, in the order of first use. */
  inOrder(): number[] {
    const { order } = this;
    const found: number[] = [];
    for (let place = 0; place < Math.min(order.length, this.count); place++) {
      const block = Atomics.load(order, place) - 1;
      if (block >= 0) found.push(block);
    }
    return found;
  }
}
