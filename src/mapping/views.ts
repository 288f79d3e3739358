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
 * Which ones: a hand goes round them in the order in which they came (CLOCK: Corbató 1968). When there are too many, the next that
 * was not asked for since the hand was there last is let go. So a hit writes one field and moves nothing, and the whole budget
 * serves. (Of two generations the old one was let go as a whole: among 100,000 ranges of 12 GiB two views in five were made anew.)
 */
import { totalmem } from "node:os";
import { bufferAt, detach, MAX_BUFFER_BYTES } from "../../ffi/index.ts";
import { pageOf } from "../units.ts";

/** The typed arrays that a range can be viewed as. */
export type ViewConstructor<T> = new (buffer: ArrayBuffer) => T;

interface CachedView {
  readonly start: number;
  readonly end: number;
  readonly buffer: ArrayBuffer;
  type: unknown;
  view: ArrayBufferView;
  /** Asked for since the hand was here last. */
  isUsed: boolean;
}

const FIRST_SWEEP = 256;

export class Views {
  private readonly base: number;
  private readonly onEscape: () => void;
  private readonly maxCount: number;
  private readonly maxBytes: number;
  /** By first page. */
  private readonly kept = new Map<number, CachedView>();
  private keptBytes = 0;
  /** Goes on with entries that come while it is on its way. */
  private hand = this.kept.values();
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
   * @throws {TypeError} if `type` makes something else than a view
   */
  get<T>(start: number, end: number, type: ViewConstructor<T>): T {
    const entry = this.kept.get(pageOf(start));
    // Length 0: the user transferred the buffer away.
    if (entry === undefined || entry.end !== end || entry.view.byteLength === 0) return this.create(start, end, type);
    if (entry.type !== type) {
      entry.view = construct(type, entry.buffer) as ArrayBufferView;
      entry.type = type;
    }
    entry.isUsed = true;
    return entry.view as T;
  }

  private create<T>(start: number, end: number, type: ViewConstructor<T>): T {
    if (end - start > MAX_BUFFER_BYTES) {
      throw new RangeError(`Cannot view ${end - start} bytes at once, the most is ${MAX_BUFFER_BYTES}; use views()`);
    }
    const buffer = bufferAt(this.base + start, end - start);
    let view: T;
    try {
      view = construct(type, buffer);
    } catch (error) {
      detach(buffer);
      throw error;
    }
    const before = this.kept.get(pageOf(start));
    if (before !== undefined) this.drop(before);
    this.keep({ start, end, buffer, type, view: view as ArrayBufferView, isUsed: false });
    return view;
  }

  private keep(entry: CachedView): void {
    const bytes = entry.end - entry.start;
    while (this.kept.size > 0 && (this.kept.size >= this.maxCount || this.keptBytes + bytes > this.maxBytes)) this.advance();
    this.kept.set(pageOf(entry.start), entry);
    this.keptBytes += bytes;
  }

  /** Moves the hand by one entry. */
  private advance(): void {
    const { value: entry } = this.hand.next();
    if (entry === undefined) this.hand = this.kept.values();
    else if (entry.isUsed) entry.isUsed = false;
    else this.drop(entry);
  }

  private drop(entry: CachedView): void {
    this.kept.delete(pageOf(entry.start));
    this.keptBytes -= entry.end - entry.start;
    this.letGo(entry);
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
    for (const entry of this.kept.values()) this.letGo(entry);
    this.kept.clear();
    this.keptBytes = 0;
    this.buffers = this.buffers.filter((reference) => {
      const buffer = reference.deref();
      if (buffer?.detached === true) this.onEscape();
      return buffer !== undefined && !detach(buffer);
    });
    return this.buffers.length === 0;
  }
}

function construct<T>(type: ViewConstructor<T>, buffer: ArrayBuffer): T {
  const view = new type(buffer);
  if (!ArrayBuffer.isView(view)) throw new TypeError(`Expected a typed array's constructor, got ${String(type.name)}`);
  return view;
}
