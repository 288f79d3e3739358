/**
 * The views that one thread has handed out over a mapping.
 *
 * Each view has a buffer of exactly its own range: posting one to a Worker copies that range, not a chunk of 1 GiB, as it
 * would if views were windows on a chunk's buffer. Every buffer is remembered until it is collected, since destroy must
 * detach each of them before memory is unmapped.
 *
 * A new buffer costs 140 ns, and 1,100 ns at 128 KiB, for the collector counts its bytes as garbage to come. So the last
 * views are kept, and asking for a range again gives the same view in a fraction of that (bench/view.bench.ts), without a look
 * at its pages as long as nobody discarded any. Who asks with the very FileRange of the last time need not even look it up: the
 * range remembers its view (file-range.ts) until that is let go here. How many: their bytes count as heap, and the larger the
 * heap, the later the collector runs. Beside kept views of 2.5, 12 and 50 GB a program had 0.8 to 1.5 GB of garbage at most, 0.1 GB
 * without, and 5 to 9 GB, 0.2 without, if it never came round its event loop, where Bun looks for itself. So it is not their bytes
 * that matter, from some GB up; at most as many are kept as the machine has memory, and 131,072 views (40 MB of objects).
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
import { type FileRange, forgetView, keepView, type RangeLike, takeUsed } from "../pages/range.ts";
import { PAGE_SIZE } from "../pages/units.ts";

/** The typed arrays that a range can be viewed as. */
export type ViewConstructor<T> = new (buffer: ArrayBuffer) => T;

const FIRST_SLOTS = 16;
const FIRST_SWEEP = 256;
/** Of a key: asked for since the hand was here last. */
const USED = 1;
/** Of a key: the view is a Uint8Array, as most are. */
const BYTES = 2;
const FLAGS = USED | BYTES;
const FLAG_BITS = 2;
const SLOT_WORDS = 3;
/** 2^32 divided by the golden ratio: the top bits of a multiple are spread evenly (Knuth, TAOCP 6.4). */
const HASH_FACTOR = 0x9e3779b1;

/**
 * A hash table by first page: open addressing with linear probing, at most half full. It is columns, not a Map of entries,
 * since among many views the lines of memory that a look-up touches are what it costs: among 100,000 it took two thirds of the
 * time, among 10,000 three quarters, among 100 as long.
 */
class Slots {
  /**
   * Three words a slot: 0 if it is free, else (first page + 1) * 4 + flags; how many pages the view was made of; and Word.Discards
   * as it was when each of them had a reference and was loaded.
   */
  readonly words: Int32Array;
  readonly views: (ArrayBufferView | undefined)[] = [];
  /** Whatever a view says of itself, since its type may be the user's: this is what must be detached. */
  readonly buffers: (ArrayBuffer | undefined)[] = [];
  readonly types: unknown[] = [];
  /** The range that remembers the view as well. */
  readonly ranges: (FileRange | undefined)[] = [];
  private readonly mask: number;
  private readonly shift: number;

  /** @param count a power of 2 */
  constructor(count: number) {
    this.words = new Int32Array(SLOT_WORDS * count);
    // One by one: of a large `new Array` the engine makes a slower kind.
    for (let i = 0; i < count; i++) {
      this.views.push(undefined);
      this.buffers.push(undefined);
      this.types.push(undefined);
      this.ranges.push(undefined);
    }
    this.mask = count - 1;
    this.shift = Math.clz32(this.mask);
  }

  /** The slot of the view from `page` on, or the free one where it would go. */
  find(page: number): number {
    const { words, mask } = this;
    const key = (page + 1) << FLAG_BITS;
    let slot = this.home(page);
    for (
      let found = words[SLOT_WORDS * slot]!;
      found !== 0 && (found & ~FLAGS) !== key;
      found = words[SLOT_WORDS * slot]!
    )
      slot = (slot + 1) & mask;
    return slot;
  }

  private home(page: number): number {
    return Math.imul(page, HASH_FACTOR) >>> this.shift;
  }

  /** What another table, or this one, has in slot `from`. */
  copy(slot: number, other: Slots, from: number): void {
    for (let word = 0; word < SLOT_WORDS; word++)
      this.words[SLOT_WORDS * slot + word] = other.words[SLOT_WORDS * from + word]!;
    this.views[slot] = other.views[from];
    this.buffers[slot] = other.buffers[from];
    this.types[slot] = other.types[from];
    this.ranges[slot] = other.ranges[from];
  }

  setView(slot: number, view: ArrayBufferView, type: unknown): void {
    this.views[slot] = view;
    this.types[slot] = type;
    this.words[SLOT_WORDS * slot] =
      (this.words[SLOT_WORDS * slot]! & ~BYTES) | (type === Uint8Array ? BYTES : 0);
  }

  /** Frees a slot, and moves up those behind it that would not be found any more. */
  remove(slot: number): void {
    const { words, mask } = this;
    let free = slot;
    for (let from = (slot + 1) & mask; words[SLOT_WORDS * from] !== 0; from = (from + 1) & mask) {
      const home = this.home((words[SLOT_WORDS * from]! >>> FLAG_BITS) - 1);
      if (((from - home) & mask) < ((from - free) & mask)) continue;
      this.copy(free, this, from);
      free = from;
    }
    words[SLOT_WORDS * free] = 0;
    this.views[free] = this.buffers[free] = this.types[free] = this.ranges[free] = undefined;
  }
}

/**
 * Views of these types are remembered by their ranges: it is known of them what asking for their length does. As they are when this
 * is loaded: a program may put others in their places.
 */
const REMEMBERED_TYPES: readonly unknown[] = [
  Uint8Array,
  Float32Array,
  Float64Array,
  Int32Array,
  Uint32Array,
  Int16Array,
  Uint16Array,
  Int8Array,
  Uint8ClampedArray,
  BigInt64Array,
  BigUint64Array,
];
/** The usual ones are found without a look-up. */
const [FIRST_TYPE, SECOND_TYPE] = REMEMBERED_TYPES;
const TYPE_INDEXES: ReadonlyMap<unknown, number> = new Map(
  REMEMBERED_TYPES.map((type, index) => [type, index]),
);
const STAMPS_PER_EPOCH = REMEMBERED_TYPES.length;
/** Epochs of all Views of this thread: each has a new one whenever pages were discarded, and no two have the same. */
let lastEpoch = 0;

/** Which of an epoch's stamps views of a type have; -1: they are not remembered. */
const stampIndexOf = (type: unknown): number => {
  if (type === FIRST_TYPE) return 0;
  if (type === SECOND_TYPE) return 1;
  return TYPE_INDEXES.get(type) ?? -1;
};

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
  private hasEnded = false;
  /** What `get` was told last: of no view it is known that it was looked at since pages were discarded after that. */
  private newestDiscards = 0;
  private epoch = ++lastEpoch;

  /**
   * Keeps at most `maxCount` views of `maxBytes` together. `onEscape` is called when a buffer turns out to have been
   * transferred away.
   */
  constructor(base: number, onEscape: () => void, maxCount = 131_072, maxBytes = totalmem()) {
    this.base = base;
    this.onEscape = onEscape;
    this.maxCount = maxCount;
    this.maxBytes = maxBytes;
  }

  /** The stamp of views of that type whose pages were looked at when Word.Discards was `discards`; 0 if none can have been. */
  stampOf(type: unknown, discards: number): number {
    if (discards !== this.newestDiscards) return 0;
    const index = stampIndexOf(type);
    return index < 0 ? 0 : this.epoch * STAMPS_PER_EPOCH + index;
  }

  /** Pages were looked at when Word.Discards was `discards`: of no others it is known now that nobody discarded them. */
  noteLook(discards: number): void {
    if (this.newestDiscards === discards) return;
    this.newestDiscards = discards;
    this.epoch = ++lastEpoch;
  }

  /**
   * Has the range, which is pages [start, end), remember the view that `get` has just found for it: the next look-up finds it there.
   * Not after each `find`: where a program makes a FileRange for each call, that took twice as long.
   */
  remember<T>(
    range: RangeLike,
    start: number,
    end: number,
    type: ViewConstructor<T>,
    view: T,
    discards: number,
  ): void {
    const stamp = this.stampOf(type, discards);
    if (stamp === 0) return;
    const kept = { view: view as ArrayBufferView, views: this, type, stamp };
    if (!keepView(range, start * PAGE_SIZE, end * PAGE_SIZE, kept)) return;
    const slot = this.kept.find(start);
    const before = this.kept.ranges[slot];
    if (before === range) return;
    if (before !== undefined) forgetView(before);
    this.kept.ranges[slot] = range as FileRange;
  }

  /**
   * The view of pages [start, end) that was handed out last, if it is of that type and still the user's to use; undefined if not, or
   * if pages were discarded since: then whether these may be viewed must be asked before `get`. (With a body that both shared this
   * took a fifth longer among 100 ranges.)
   */
  find<T>(start: number, end: number, type: ViewConstructor<T>, discards: number): T | undefined {
    if (discards !== this.newestDiscards) return undefined;
    const { kept } = this;
    const { words, views } = kept;
    const slot = kept.find(start);
    const at = SLOT_WORDS * slot;
    if (words[at + 1] !== end - start || words[at + 2] !== discards) return undefined;
    const view = views[slot];
    if ((type as unknown) === Uint8Array) {
      // Length 0: the user transferred the buffer away.
      if ((words[at]! & BYTES) === 0 || view!.byteLength === 0) return undefined;
    } else if (kept.types[slot] !== type || kept.buffers[slot]!.detached) return undefined;
    words[at]! |= USED;
    return view as T;
  }

  /**
   * The view of pages [start, end): the one that was handed out last, or a new one. `discards` is Word.Discards, read before
   * somebody looked whether the pages may be viewed.
   *
   * @throws {RangeError} above 4 GiB, or if the element size does not divide the page size
   * @throws {TypeError} if `type` makes something else than a view, or ends all views
   */
  get<T>(start: number, end: number, type: ViewConstructor<T>, discards: number): T {
    this.noteLook(discards);
    const { words, views } = this.kept;
    const slot = this.kept.find(start);
    const at = SLOT_WORDS * slot;
    const isKept = (words[at]! & BYTES) !== 0 && words[at + 1] === end - start;
    // Of a kept array of bytes, which most are, the view alone is looked at, and not its buffer.
    if (!isKept || (type as unknown) !== Uint8Array || views[slot]!.byteLength === 0) {
      return this.getOther(start, end, type, discards);
    }
    words[at]! |= USED;
    words[at + 2] = discards;
    return views[slot] as T;
  }

  private getOther<T>(start: number, end: number, type: ViewConstructor<T>, discards: number): T {
    const { kept } = this;
    const slot = kept.find(start);
    let buffer = kept.buffers[slot];
    if (
      buffer === undefined ||
      buffer.detached ||
      kept.words[SLOT_WORDS * slot + 1] !== end - start
    ) {
      buffer = this.create(start, end, discards);
      if ((type as unknown) === Uint8Array) return this.kept.views[this.kept.find(start)] as T;
    } else {
      kept.words[SLOT_WORDS * slot]! |= USED;
      kept.words[SLOT_WORDS * slot + 2] = discards;
      if (kept.types[slot] === type) return kept.views[slot] as T;
    }
    return this.retype(start, buffer, type);
  }

  /** A view of that type. What makes it may be the user's code: the buffer is kept before. */
  private retype<T>(start: number, buffer: ArrayBuffer, type: ViewConstructor<T>): T {
    const view = new type(buffer);
    if (!ArrayBuffer.isView(view))
      throw new TypeError(`Expected a typed array's constructor, got ${String(type.name)}`);
    const slot = this.kept.find(start);
    if (this.kept.buffers[slot] === buffer) this.kept.setView(slot, view, type);
    return view;
  }

  private create(start: number, end: number, discards: number): ArrayBuffer {
    if (this.hasEnded)
      throw new TypeError("Cannot make a view of a file that was destroyed meanwhile");
    const bytes = (end - start) * PAGE_SIZE;
    if (bytes > MAX_BUFFER_BYTES) {
      throw new RangeError(
        `Cannot view ${bytes} bytes at once, the most is ${MAX_BUFFER_BYTES}; use views()`,
      );
    }
    const buffer = bufferAt(this.base + start * PAGE_SIZE, bytes);
    while (
      this.keptCount > 0 &&
      (this.keptCount >= this.maxCount || this.keptBytes + bytes > this.maxBytes)
    )
      this.advance();
    let slot = this.kept.find(start);
    if (this.kept.buffers[slot] !== undefined) {
      // Its place in the order stays.
      this.keptBytes -= this.kept.words[SLOT_WORDS * slot + 1]! * PAGE_SIZE;
      this.letGo(slot);
    } else {
      if (2 * this.keptCount >= this.order.length) {
        this.grow();
        slot = this.kept.find(start);
      }
      this.order[(this.hand + this.keptCount) & (this.order.length - 1)] = start;
      this.keptCount++;
    }
    this.kept.words[SLOT_WORDS * slot] = (start + 1) << FLAG_BITS;
    this.kept.words[SLOT_WORDS * slot + 1] = end - start;
    this.kept.words[SLOT_WORDS * slot + 2] = discards;
    this.kept.buffers[slot] = buffer;
    this.kept.setView(slot, new Uint8Array(buffer), Uint8Array);
    this.keptBytes += bytes;
    return buffer;
  }

  private grow(): void {
    const { kept, order, hand, keptCount } = this;
    this.kept = new Slots(2 * order.length);
    this.order = new Int32Array(2 * order.length);
    this.hand = 0;
    for (let i = 0; i < keptCount; i++) {
      const page = order[(hand + i) & (order.length - 1)]!;
      this.order[i] = page;
      this.kept.copy(this.kept.find(page), kept, kept.find(page));
    }
  }

  /** Moves the hand by one view, which is the last again if it was asked for, and let go otherwise. */
  private advance(): void {
    const { kept, order, hand } = this;
    const page = order[hand]!;
    const slot = kept.find(page);
    this.hand = (hand + 1) & (order.length - 1);
    const range = kept.ranges[slot];
    const wasUsed = range !== undefined && takeUsed(range);
    if (wasUsed || (kept.words[SLOT_WORDS * slot]! & USED) !== 0) {
      kept.words[SLOT_WORDS * slot]! &= ~USED;
      order[(hand + this.keptCount) & (order.length - 1)] = page;
      return;
    }
    this.keptCount--;
    this.keptBytes -= kept.words[SLOT_WORDS * slot + 1]! * PAGE_SIZE;
    this.letGo(slot);
    kept.remove(slot);
  }

  /** The view is not kept any more; its user may go on with it. */
  private letGo(slot: number): void {
    const { ranges, buffers } = this.kept;
    const range = ranges[slot];
    if (range !== undefined) forgetView(range);
    ranges[slot] = undefined;
    const buffer = buffers[slot]!;
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
   * Detaches every buffer, and is the end of all views. True when all are; false when something pins one (I/O in flight): call
   * again later, and do not unmap before.
   */
  detachAll(): boolean {
    this.hasEnded = true;
    for (let slot = 0; slot < this.order.length; slot++)
      if (this.kept.buffers[slot] !== undefined) this.letGo(slot);
    this.kept = new Slots(FIRST_SLOTS);
    this.order = new Int32Array(FIRST_SLOTS);
    this.hand = this.keptCount = this.keptBytes = 0;
    this.sweep();
    this.buffers = this.buffers.filter((reference) => {
      const buffer = reference.deref();
      return buffer !== undefined && !detach(buffer);
    });
    return this.buffers.length === 0;
  }
}
