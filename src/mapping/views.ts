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
 * Which ones: a hand goes round them (CLOCK: Corbató 1968). When there are too many, the next that was not asked for since the
 * hand was there last is let go. So a hit sets a bit and moves nothing, and the whole budget serves. (Of two generations the
 * old one was let go as a whole: among 100,000 ranges of 12 GiB two views in five were made anew.)
 */
import { totalmem } from "node:os";
import { bufferAt, detach, MAX_BUFFER_BYTES } from "../../ffi/index.ts";
import { PAGE_SIZE } from "../units.ts";

/** The typed arrays that a range can be viewed as. */
export type ViewConstructor<T> = new (buffer: ArrayBuffer) => T;

/** What all typed arrays have. */
type TypedArray = Uint8Array<ArrayBuffer>;

const FIRST_SLOTS = 256;
const FIRST_SWEEP = 256;
/** Of a key: asked for since the hand was here last. */
const USED = 1;
/** 2^32 divided by the golden ratio: the top bits of a multiple are spread evenly (Knuth, TAOCP 6.4). */
const HASH_FACTOR = 0x9e3779b1;

/**
 * A hash table by first page: open addressing with linear probing, at most half full. It is columns, not a Map of entries,
 * since among many views the lines of memory that a look-up touches are what it costs: among 100,000 it took two thirds of the
 * time, among 10,000 three quarters, among 100 as long.
 */
class Slots {
  /** 0 if the slot is free, else (first page + 1) * 2 + USED. */
  readonly keys: Int32Array;
  /** How many pages the view had when it was made. */
  readonly pages: Int32Array;
  readonly views: (TypedArray | undefined)[] = [];
  private readonly mask: number;
  private readonly shift: number;

  /** @param count a power of 2 */
  constructor(count: number) {
    this.keys = new Int32Array(count);
    this.pages = new Int32Array(count);
    // One by one: of a large `new Array` the engine makes a slower kind.
    for (let i = 0; i < count; i++) this.views.push(undefined);
    this.mask = count - 1;
    this.shift = Math.clz32(this.mask);
  }

  /** The slot of the view from `page` on, or the free one where it would go. */
  find(page: number): number {
    const { keys, mask } = this;
    const key = (page + 1) << 1;
    let slot = this.home(page);
    for (let found = keys[slot]!; found !== 0 && (found & ~USED) !== key; found = keys[slot]!) slot = (slot + 1) & mask;
    return slot;
  }

  private home(page: number): number {
    return Math.imul(page, HASH_FACTOR) >>> this.shift;
  }

  put(slot: number, key: number, pages: number, view: TypedArray): void {
    this.keys[slot] = key;
    this.pages[slot] = pages;
    this.views[slot] = view;
  }

  /** Frees a slot, and moves up those behind it that would not be found any more. */
  remove(slot: number): void {
    const { keys, pages, views, mask } = this;
    let free = slot;
    for (let from = (slot + 1) & mask; keys[from] !== 0; from = (from + 1) & mask) {
      const home = this.home((keys[from]! >>> 1) - 1);
      if (((from - home) & mask) < ((from - free) & mask)) continue;
      this.put(free, keys[from]!, pages[from]!, views[from]!);
      free = from;
    }
    keys[free] = 0;
    views[free] = undefined;
  }
}

export class Views {
  private readonly base: number;
  private readonly onEscape: () => void;
  private readonly maxCount: number;
  private readonly maxBytes: number;
  private kept = new Slots(FIRST_SLOTS);
  /** First pages of what is kept, in the order in which the hand comes to them: a ring from `hand` on, as large as the table. */
  private order = new Int32Array(FIRST_SLOTS);
  private hand = 0;
  private keptCount = 0;
  private keptBytes = 0;
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
   * The view of pages [start, end): the one that was handed out last, if it is still the user's to use and of that type.
   *
   * @throws {RangeError} above 4 GiB, or if the element size does not divide the page size
   * @throws {TypeError} if `type` makes something else than a view
   */
  get<T>(start: number, end: number, type: ViewConstructor<T>): T {
    const { keys, views } = this.kept;
    const slot = this.kept.find(start);
    let view = views[slot];
    // Length 0: the user transferred the buffer away.
    if (view === undefined || view.byteLength !== (end - start) * PAGE_SIZE) view = this.create(start, end);
    else keys[slot]! |= USED;
    return view.constructor === type ? (view as T) : this.retype(start, view, type);
  }

  /** The same memory as another type. What makes it may be the user's code: the buffer is kept before, as bytes. */
  private retype<T>(start: number, view: TypedArray, type: ViewConstructor<T>): T {
    const other = new type(view.buffer);
    if (!ArrayBuffer.isView(other)) throw new TypeError(`Expected a typed array's constructor, got ${String(type.name)}`);
    // What is kept must lead to our buffer, and the length of a DataView cannot be asked for once that is gone.
    if (other.buffer === view.buffer && !(other instanceof DataView)) {
      const slot = this.kept.find(start);
      if (this.kept.views[slot] === view) this.kept.views[slot] = other as unknown as TypedArray;
    }
    return other;
  }

  private create(start: number, end: number): TypedArray {
    const bytes = (end - start) * PAGE_SIZE;
    if (bytes > MAX_BUFFER_BYTES) {
      throw new RangeError(`Cannot view ${bytes} bytes at once, the most is ${MAX_BUFFER_BYTES}; use views()`);
    }
    const view = new Uint8Array(bufferAt(this.base + start * PAGE_SIZE, bytes));
    while (this.keptCount > 0 && (this.keptCount >= this.maxCount || this.keptBytes + bytes > this.maxBytes)) this.advance();
    let slot = this.kept.find(start);
    const before = this.kept.views[slot];
    if (before !== undefined) {
      // Its place in the order stays.
      this.keptBytes -= this.kept.pages[slot]! * PAGE_SIZE;
      this.letGo(before.buffer);
    } else {
      if (2 * this.keptCount >= this.order.length) {
        this.grow();
        slot = this.kept.find(start);
      }
      this.order[(this.hand + this.keptCount) & (this.order.length - 1)] = start;
      this.keptCount++;
    }
    this.kept.put(slot, (start + 1) << 1, end - start, view);
    this.keptBytes += bytes;
    return view;
  }

  private grow(): void {
    const { kept, order, hand, keptCount } = this;
    this.kept = new Slots(2 * order.length);
    this.order = new Int32Array(2 * order.length);
    this.hand = 0;
    for (let i = 0; i < keptCount; i++) {
      const page = order[(hand + i) & (order.length - 1)]!;
      const from = kept.find(page);
      this.order[i] = page;
      this.kept.put(this.kept.find(page), kept.keys[from]!, kept.pages[from]!, kept.views[from]!);
    }
  }

  /** Moves the hand by one view, which is the last again if it was asked for, and let go otherwise. */
  private advance(): void {
    const { kept, order, hand } = this;
    const page = order[hand]!;
    const slot = kept.find(page);
    this.hand = (hand + 1) & (order.length - 1);
    if ((kept.keys[slot]! & USED) !== 0) {
      kept.keys[slot]! &= ~USED;
      order[(hand + this.keptCount) & (order.length - 1)] = page;
      return;
    }
    const { buffer } = kept.views[slot]!;
    this.keptCount--;
    this.keptBytes -= kept.pages[slot]! * PAGE_SIZE;
    kept.remove(slot);
    this.letGo(buffer);
  }

  /** The view is not kept any more; its user may go on with it. */
  private letGo(buffer: ArrayBuffer): void {
    if (this.buffers.length >= this.sweepAt) this.sweep();
    if (buffer.detached) this.onEscape();
    else this.buffers.push(new WeakRef(buffer));
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
    for (const view of this.kept.views) if (view !== undefined) this.letGo(view.buffer);
    this.kept = new Slots(FIRST_SLOTS);
    this.keptCount = 0;
    this.keptBytes = 0;
    this.hand = 0;
    this.buffers = this.buffers.filter((reference) => {
      const buffer = reference.deref();
      if (buffer?.detached === true) this.onEscape();
      return buffer !== undefined && !detach(buffer);
    });
    return this.buffers.length === 0;
  }
}
