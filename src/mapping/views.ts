/**
 * The views that one thread has handed out over a mapping.
 *
 * Each view has a buffer of exactly its own range: posting one to a Worker copies that range, not a chunk of 1 GiB, as it
 * would if views were windows on a chunk's buffer. Every buffer is remembered until it is collected, since destroy must
 * detach each of them before memory is unmapped.
 *
 * A new buffer costs 140 ns, and 1,100 ns at 128 KiB, for the collector counts its bytes as garbage to come. So the last
 * views are kept, and asking for a range again gives the same view in 40 ns (80 ns among 10,000). How many: their bytes
 * count as heap, but 128,000 views of 128 KiB slowed an allocation-heavy loop from 12 to 17 ms, where views of more bytes than
 * the machine has made it ten times slower; hence at most half the machine's memory, and 131,072 views (40 MB of objects).
 *
 * A buffer that the user transferred away (transfer(), a transfer list) is gone here, but lives on over the same memory, in
 * other hands. Such an escape is reported (`onEscape`), so that its addresses are never given back: a view is looked at
 * when it is let go, when it is swept, and at the end.
 *
 * They are kept in two generations: a view that is asked for is in the young one; when that is half of what may be kept,
 * it becomes the old one, and what was old is let go.
 */
import { totalmem } from "node:os";
import { bufferAt, detach, MAX_BUFFER_BYTES } from "../../ffi/index.ts";
import { PAGE_SIZE } from "../units.ts";

/** The typed arrays that a range can be viewed as. */
export type ViewConstructor<T> = new (buffer: ArrayBuffer) => T;

interface CachedView {
  readonly start: number;
  readonly end: number;
  readonly buffer: ArrayBuffer;
  type: unknown;
  view: ArrayBufferView;
}

const FIRST_SWEEP = 256;

export class Views {
  private readonly base: number;
  private readonly onEscape: () => void;
  private readonly maxCount: number;
  private readonly maxBytes: number;
  /** By first page. */
  private young = new Map<number, CachedView>();
  private old = new Map<number, CachedView>();
  private youngBytes = 0;
  /** Buffers that are not kept any more. */
  private buffers: WeakRef<ArrayBuffer>[] = [];
  private sweepAt = FIRST_SWEEP;

  /**
   * Keeps at most `maxCount` views of `maxBytes` together. `onEscape` is called when a buffer turns out to have been
   * transferred away.
   */
  constructor(base: number, onEscape: () => void, maxCount = 131_072, maxBytes = totalmem() / 2) {
    this.base = base;
    this.onEscape = onEscape;
    this.maxCount = maxCount;
    this.maxBytes = maxBytes;
  }

  /**
   * The view of the bytes [start, end): the one that was handed out last, if it is still the user's to use.
   *
   * @throws {RangeError} above 4 GiB, or if the element size does not divide the page size
   */
  get<T>(start: number, end: number, type: ViewConstructor<T>): T {
    const page = start / PAGE_SIZE;
    const entry = this.young.get(page) ?? this.rejuvenate(page);
    // Length 0: the user transferred the buffer away.
    if (entry === undefined || entry.end !== end || entry.view.byteLength === 0) return this.create(start, end, type);
    if (entry.type !== type) {
      entry.view = new type(entry.buffer) as ArrayBufferView;
      entry.type = type;
    }
    return entry.view as T;
  }

  private create<T>(start: number, end: number, type: ViewConstructor<T>): T {
    if (end - start > MAX_BUFFER_BYTES) {
      throw new RangeError(`Cannot view ${end - start} bytes at once, the most is ${MAX_BUFFER_BYTES}; use views()`);
    }
    const buffer = bufferAt(this.base + start, end - start);
    let view: T;
    try {
      view = new type(buffer);
    } catch (error) {
      detach(buffer);
      throw error;
    }
    const page = start / PAGE_SIZE;
    const before = this.young.get(page);
    if (before !== undefined) {
      this.youngBytes -= before.end - start;
      this.letGo(before);
    }
    this.keep(page, { start, end, buffer, type, view: view as ArrayBufferView });
    return view;
  }

  private keep(page: number, entry: CachedView): void {
    this.young.set(page, entry);
    this.youngBytes += entry.end - entry.start;
    if (2 * this.young.size <= this.maxCount && 2 * this.youngBytes <= this.maxBytes) return;
    for (const dropped of this.old.values()) this.letGo(dropped);
    this.old = this.young;
    this.young = new Map();
    this.youngBytes = 0;
  }

  private rejuvenate(page: number): CachedView | undefined {
    const entry = this.old.get(page);
    if (entry === undefined) return undefined;
    this.old.delete(page);
    this.keep(page, entry);
    return entry;
  }

  /** The view is not kept any more; its user may go on with it. */
  private letGo(entry: CachedView): void {
    if (this.buffers.length >= this.sweepAt) this.sweep();
    if (entry.buffer.detached) this.onEscape();
    else this.buffers.push(new WeakRef(entry.buffer));
  }

  private sweep(): void {
    this.buffers = this.buffers.filter((reference) => {
      const buffer = reference.deref();
      if (buffer?.detached === true) this.onEscape();
      return buffer !== undefined && !buffer.detached;
    });
    this.sweepAt = Math.max(FIRST_SWEEP, 2 * this.buffers.length);
  }

  /**
   * Detaches every buffer. True when all are; false when something pins one (I/O in flight): call again later, and do
   * not unmap before.
   */
  detachAll(): boolean {
    for (const generation of [this.young, this.old]) {
      for (const entry of generation.values()) this.letGo(entry);
      generation.clear();
    }
    this.youngBytes = 0;
    this.buffers = this.buffers.filter((reference) => {
      const buffer = reference.deref();
      if (buffer?.detached === true) this.onEscape();
      return buffer !== undefined && !detach(buffer);
    });
    return this.buffers.length === 0;
  }
}
