/**
 * The views that one thread has handed out over a mapping.
 *
 * Each view has a buffer of exactly its own range: posting one to a Worker copies that range, not a chunk of 1 GiB. Every
 * buffer is remembered, weakly, until it is collected, since destroy must detach each of them before memory is unmapped.
 * A small table of the last views makes asking for the same range again cheap (a new buffer costs about 400 ns), and
 * gives the same view object.
 */
import { bufferAt, detach, MAX_BUFFER_BYTES } from "../../ffi/index.ts";
import { PAGE_SHIFT, PAGE_SIZE } from "../units.ts";

/** The typed arrays that a range can be viewed as. */
export type ViewConstructor<T> = new (buffer: ArrayBuffer) => T;

interface CachedView {
  readonly start: number;
  readonly end: number;
  readonly type: unknown;
  readonly view: ArrayBufferView;
}

const CACHE_SIZE = 1024;
const FIRST_SWEEP = 256;

export class Views {
  private readonly base: number;
  private readonly cache: (CachedView | undefined)[] = new Array(CACHE_SIZE).fill(undefined);
  private buffers: WeakRef<ArrayBuffer>[] = [];
  private sweepAt = FIRST_SWEEP;

  constructor(base: number) {
    this.base = base;
  }

  /** The view of [start, end) that was asked for last, if it is still the user's to use. */
  cached<T>(start: number, end: number, type: ViewConstructor<T>): T | undefined {
    const entry = this.cache[slot(start)];
    if (entry === undefined || entry.start !== start || entry.end !== end || entry.type !== type) return undefined;
    // Length 0: the user transferred the buffer away.
    return entry.view.byteLength === 0 ? undefined : (entry.view as T);
  }

  /** @throws {RangeError} above 4 GiB, or if the element size does not divide the page size */
  create<T>(start: number, end: number, type: ViewConstructor<T>): T {
    if (end - start > MAX_BUFFER_BYTES) {
      throw new RangeError(`Cannot view ${end - start} bytes at once, the most is ${MAX_BUFFER_BYTES}; use views()`);
    }
    if (this.buffers.length >= this.sweepAt) this.sweep();
    const buffer = bufferAt(this.base + start, end - start);
    this.buffers.push(new WeakRef(buffer));
    const view = new type(buffer);
    this.cache[slot(start)] = { start, end, type, view: view as ArrayBufferView };
    return view;
  }

  private sweep(): void {
    this.buffers = this.buffers.filter((reference) => reference.deref() !== undefined);
    this.sweepAt = Math.max(FIRST_SWEEP, 2 * this.buffers.length);
  }

  /**
   * Detaches every buffer. True when all are; false when something pins one (I/O in flight): call again later, and do
   * not unmap before.
   */
  detachAll(): boolean {
    this.cache.fill(undefined);
    this.buffers = this.buffers.filter((reference) => {
      const buffer = reference.deref();
      return buffer !== undefined && !detach(buffer);
    });
    return this.buffers.length === 0;
  }
}

function slot(start: number): number {
  const page = start / PAGE_SIZE;
  return (page ^ (page >>> (20 - PAGE_SHIFT))) & (CACHE_SIZE - 1);
}
