/**
 * AsyncReader: makes a SourceReader from a ContentReader, the small interface that a program (or a
 * remote source) implements: fill these bytes, now or later.
 *
 * A read's views are detached when the read ends, for any reason. So a ContentReader that answers
 * late, or never, touches no memory after `close`: its writes have no effect.
 */
import { bufferAt, detach } from "../../ffi/index.ts";
import { DestroyedError } from "../errors/errors.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../pages/units.ts";
import type { ReadCompletions, ReaderCapabilities, SourceReader } from "./reader.ts";

/** One read of a ContentReader. */
export interface ContentRequest {
  readonly content: number;
  /** Byte offset in the content. */
  readonly offset: number;
  readonly lengthBytes: number;
  /**
   * Memory to fill, in order: `lengthBytes` in total. It must not be used once the read has ended.
   */
  readonly into: readonly Uint8Array[];
  /** Aborted when the answer is not needed any more. */
  readonly signal: AbortSignal;
}

/** The part that a page source's module provides for one thread. */
export interface ContentReader {
  readonly capabilities?: Partial<ReaderCapabilities> | undefined;
  /** How many reads in flight are of use now. Default: `readsInFlight`. Less than 1 counts as 1. */
  readonly usefulReads?: number;
  /**
   * Fills memory, and returns (or resolves with) how many bytes it filled: fewer than requested
   * only at the end of the content. With `mayBlock` it returns a number, not a promise. It throws
   * (or rejects) if the contents cannot be read.
   */
  read(request: ContentRequest): number | Promise<number>;
  close?(): void | Promise<void>;
}

const DEFAULTS: ReaderCapabilities = {
  readsInFlight: 8,
  readBytesMax: HUGE_PAGE_SIZE,
  alignmentBytes: 1,
  mayBlock: false,
  mayFailInPart: false,
};
/** How often to try to detach a pinned buffer again while closing. */
const PINNED_RETRY_MS = 2;
/** The longest wait for a module's own close. */
const CLOSE_MS_MAX = 100;

interface Pending {
  readonly id: number;
  readonly lengthBytes: number;
  readonly buffers: readonly ArrayBuffer[];
}

interface Ended {
  readonly id: number;
  readonly bytes: number;
  readonly error: Error | null;
}

/** Makes a SourceReader from a ContentReader, which fills bytes now or later. */
export class AsyncReader implements SourceReader {
  readonly capabilities: ReaderCapabilities;
  private readonly reader: ContentReader;
  private readonly pending = new Set<Pending>();
  /** Buffers of ended reads that are still pinned. */
  private readonly pinned = new Set<ArrayBuffer>();
  private readonly ended: Ended[] = [];
  private readonly abort = new AbortController();
  private wake: (() => void) | undefined;
  private closing: Promise<void> | undefined;

  constructor(reader: ContentReader) {
    this.reader = reader;
    this.capabilities = { ...DEFAULTS, ...reader.capabilities };
    checkCapabilities(this.capabilities);
  }

  get inFlight(): number {
    return this.pending.size + this.ended.length;
  }

  get usefulReads(): number {
    const count = this.reader.usefulReads ?? this.capabilities.readsInFlight;
    // With none, or NaN, a load would wait for ever.
    return Math.max(1, count || 1);
  }

  read(id: number, content: number, offset: number, iovecs: Float64Array, count: number): void {
    if (this.closing !== undefined) throw new DestroyedError("a page source's reader", "read()");
    if (this.inFlight >= this.capabilities.readsInFlight) {
      throw new RangeError(
        `Cannot add a read: ${this.capabilities.readsInFlight} reads are in flight`,
      );
    }
    const buffers: ArrayBuffer[] = [];
    let lengthBytes = 0;
    for (let i = 0; i < count; i++) {
      buffers.push(bufferAt(iovecs[2 * i]!, iovecs[2 * i + 1]!));
      lengthBytes += iovecs[2 * i + 1]!;
    }
    const pending = { id, lengthBytes, buffers };
    this.pending.add(pending);
    const into = buffers.map((buffer) => new Uint8Array(buffer));
    const { signal } = this.abort;
    let answer: number | Promise<number>;
    try {
      answer = this.reader.read({ content, offset, lengthBytes, into, signal });
    } catch (error) {
      this.end(pending, 0, error);
      return;
    }
    if (typeof answer === "number" || this.capabilities.mayBlock) this.end(pending, answer, null);
    else {
      Promise.resolve(answer).then(
        (bytes) => this.end(pending, bytes, null),
        (error: unknown) => this.end(pending, 0, error ?? new Error("The read failed")),
      );
    }
  }

  private end(pending: Pending, answer: unknown, thrown: unknown): void {
    if (!this.pending.delete(pending)) return;
    for (const buffer of pending.buffers) if (!detach(buffer)) this.pinned.add(buffer);
    const { id, lengthBytes } = pending;
    const isCount =
      Number.isInteger(answer) && (answer as number) >= 0 && (answer as number) <= lengthBytes;
    let error = thrown === null ? null : toError(thrown);
    if (error === null && !isCount) {
      error = new TypeError(
        `Expected read() to return 0 to ${lengthBytes} bytes, got ${String(answer)}`,
      );
    }
    this.ended.push({ id, bytes: isCount ? (answer as number) : 0, error });
    this.wake?.();
  }

  wait(minCompletions: number): ReadCompletions {
    // With `mayBlock` each read has ended when `read` returns.
    if (this.ended.length < minCompletions)
      throw new RangeError(`Cannot wait for ${minCompletions} reads: ${this.ended.length} ended`);
    return this.takeEnded();
  }

  async waitAsync(minCompletions: number): Promise<ReadCompletions> {
    while (this.ended.length < minCompletions) {
      if (this.closing !== undefined)
        throw new DestroyedError("a page source's reader", "waitAsync()");
      const { promise, resolve } = Promise.withResolvers<void>();
      this.wake = resolve;
      await promise;
    }
    return this.takeEnded();
  }

  private takeEnded(): ReadCompletions {
    const ended = this.ended.splice(0);
    return {
      count: ended.length,
      ids: Float64Array.from(ended, ({ id }) => id),
      bytes: Float64Array.from(ended, ({ bytes }) => bytes),
      errors: ended.map(({ error }) => error),
    };
  }

  close(): Promise<void> {
    this.closing ??= this.stop();
    return this.closing;
  }

  private async stop(): Promise<void> {
    const reason = new DestroyedError("a page source's reader", "read()");
    // The reads end here, so later answers are ignored.
    for (const pending of [...this.pending]) this.end(pending, 0, reason);
    this.abort.abort(reason);
    this.wake?.();
    while (this.pinned.size > 0) {
      for (const buffer of this.pinned) if (detach(buffer)) this.pinned.delete(buffer);
      if (this.pinned.size > 0)
        await new Promise((resolve) => setTimeout(resolve, PINNED_RETRY_MS));
    }
    // Memory does not depend on the module's own close, so one that hangs delays little.
    await Promise.race([this.reader.close?.(), Bun.sleep(CLOSE_MS_MAX)]);
  }
}

function toError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

/** @throws {TypeError} {RangeError} */
function checkCapabilities(capabilities: ReaderCapabilities): void {
  const { readsInFlight, readBytesMax, alignmentBytes } = capabilities;
  const requireInteger = (name: string, value: number, min: number): void => {
    if (!Number.isSafeInteger(value) || value < min)
      throw new RangeError(`Expected ${name} to be an integer of ${min} or more, got ${value}`);
  };
  requireInteger("readsInFlight", readsInFlight, 1);
  requireInteger("readBytesMax", readBytesMax, PAGE_SIZE);
  requireInteger("alignmentBytes", alignmentBytes, 1);
  if (readBytesMax % PAGE_SIZE !== 0) {
    throw new RangeError(
      `Expected readBytesMax to be a multiple of ${PAGE_SIZE}, got ${readBytesMax}`,
    );
  }
  if (alignmentBytes > PAGE_SIZE || PAGE_SIZE % alignmentBytes !== 0)
    throw new RangeError(`Expected alignmentBytes to divide ${PAGE_SIZE}, got ${alignmentBytes}`);
}
