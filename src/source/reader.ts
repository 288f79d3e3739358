/**
 * SourceReader: one thread's way to read a page source (description.ts).
 *
 * Rules that every reader follows:
 * - One thread owns a reader. Reads have no order: any may end before any other.
 * - A read is finished before its completion appears. It fills fewer bytes than requested only at
 *   the end of the content, or if it fails.
 * - Memory belongs to the caller. It must stay mapped until the read has ended or `close` has
 *   resolved. A reader does not touch it afterwards.
 * - A failed read is an Error in its completion. `read` itself throws only for bad arguments.
 * - `close` ends reads under way, also those that would never end by themselves. A blocking system
 *   call that has begun ends first.
 *
 * The idea is gVisor's AsyncReader (pkg/state/stateio). Completions follow aio/queue.ts.
 */

/** What a reader can do. Constant for the life of the reader. */
export interface ReaderCapabilities {
  /** The most reads in flight; at least 1. */
  readonly readsInFlight: number;
  /** The most bytes of one read, a multiple of the page size; at least one page. */
  readonly readBytesMax: number;
  /** Reads whose offset and length are multiples of this are fastest. A power of two; 1: any. */
  readonly alignmentBytes: number;
  /** True if `wait` may be called. Otherwise the thread needs its event loop: use `waitAsync`. */
  readonly mayBlock: boolean;
  /** True if a part of a failed read may succeed, as on a disk with a bad block. */
  readonly mayFailInPart: boolean;
}

/** Reads that have ended. The reader reuses the arrays at the next wait. */
export interface ReadCompletions {
  readonly count: number;
  /** `ids[i]` for i < count: the id of the read. */
  readonly ids: Float64Array;
  /**
   * Bytes filled, from the first on. If fewer than requested, the content ends there, or see
   * `errors`.
   */
  readonly bytes: Float64Array;
  /** Null for a read that did not fail. */
  readonly errors: readonly (Error | null)[];
}

/** One thread's way to read a source. */
export interface SourceReader {
  readonly capabilities: ReaderCapabilities;
  /** Reads that were added and have not been returned by a wait. */
  readonly inFlight: number;
  /**
   * How many reads in flight are of use now: 1 to `readsInFlight`. More would wait in the
   * reader, while their pages are claimed and no other thread can read them.
   */
  readonly usefulReads: number;
  /**
   * Adds a read at byte `offset` of a content. It fills `count` (1 to 1024) pieces of native memory
   * in order: pairs (address, length) at `iovecs[2 * i]`, `iovecs[2 * i + 1]`, which are copied at
   * once. Some readers start it only at the next wait.
   *
   * @throws {RangeError} if `readsInFlight` reads are in flight, or an argument is out of range
   * @throws {DestroyedError} after `close`
   */
  read(id: number, content: number, offset: number, iovecs: Float64Array, count: number): void;
  /** Blocks until at least `minCompletions` reads have ended. Precondition: `mayBlock`. */
  wait(minCompletions: number): ReadCompletions;
  /** `wait` for an event loop. One at a time. Rejects with DestroyedError at `close`. */
  waitAsync(minCompletions: number): Promise<ReadCompletions>;
  /** Ends all reads. Resolves when no read touches memory any more. Idempotent. */
  close(): Promise<void>;
}

/** The purpose of a reader. */
export type ReaderUse =
  /** To read ahead: as many reads in flight as make the source faster. */
  | "background"
  /** To read what a program waits for: few reads, each as soon as possible. */
  | "demand";
