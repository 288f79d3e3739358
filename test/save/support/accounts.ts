/**
 * Memory with an invariant that holds only at one instant: accounts, one a page, whose sum never
 * changes between two turns, and a sequence number that is in the first page, in the last page and
 * in the user data.
 */
import { MemoryFile, PAGE_SIZE } from "../../../src/index.ts";

const WORDS = PAGE_SIZE / 4;
const START = 1000;

export class Accounts {
  private readonly words: Int32Array;
  private readonly pages: number;
  private random: number;

  constructor(words: Int32Array, seed = 1) {
    this.words = words;
    this.pages = words.length / WORDS;
    this.random = seed;
  }

  open(): void {
    for (let page = 0; page < this.pages; page++) this.words[page * WORDS] = START;
  }

  /** One turn: money moves between pages [from, to), and what is lent in between is given back. */
  transfer(count: number, from = 1, to = this.pages - 1): void {
    for (let i = 0; i < count; i++) {
      const amount = this.next(10);
      this.words[(from + this.next(to - from)) * WORDS]! -= amount;
      this.words[(from + this.next(to - from)) * WORDS]! += amount;
    }
  }

  /** The same number at both ends of the memory. */
  number(sequence: number): void {
    this.words[1] = sequence;
    this.words[(this.pages - 1) * WORDS + 1] = sequence;
  }

  private next(below: number): number {
    this.random = (Math.imul(this.random, 1664525) + 1013904223) >>> 0;
    return (this.random >>> 8) % below;
  }

  /** What is wrong; undefined if nothing is. `sequence`: of the user data. */
  mistake(sequence: number | undefined): string | undefined {
    let sum = 0;
    for (let page = 0; page < this.pages; page++) sum += this.words[page * WORDS]!;
    if (sum !== this.pages * START) return `The sum is off by ${sum - this.pages * START}`;
    const ends = [this.words[1]!, this.words[(this.pages - 1) * WORDS + 1]!];
    const isOne = ends.every((end) => end === (sequence ?? ends[0]));
    return isOne ? undefined : `Numbers ${ends.join(", ")} and ${sequence}`;
  }
}

export function wordsOf(file: MemoryFile, bytes: number): Int32Array {
  return file.view({ start: 0, end: bytes }, Int32Array);
}

export function encodeNumber(value: number): Uint8Array {
  return new Uint8Array(Int32Array.of(value).buffer);
}

export function decodeNumber(bytes: Uint8Array | null): number | undefined {
  if (bytes === null) return undefined;
  return new DataView(bytes.buffer, bytes.byteOffset).getInt32(0, true);
}

/** Loads a checkpoint, and says what is wrong with it. */
export async function mistakeIn(directory: string, bytes: number): Promise<string | undefined> {
  using back = await MemoryFile.loadFrom(directory);
  return new Accounts(wordsOf(back, bytes)).mistake(decodeNumber(back.userData));
}
