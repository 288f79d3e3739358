/**
 * Views: the typed arrays that one thread has handed out over a mapping.
 *
 * Each view has a buffer of exactly its own range, so posting one to a Worker copies that range and
 * not a chunk of 1 GiB. A new buffer takes 140 ns, and 1,100 ns at 128 KiB, because the collector
 * counts its bytes. So the last views are kept: the same range and type give the same view again.
 * While Word.Discards is unchanged, the pages of a kept view need no check.
 *
 * At most 131,072 views are kept (40 MB of objects), of at most as many bytes as the machine's
 * memory. Their bytes count as heap, so the collector runs later: with kept views of 2.5 to 50 GB a
 * program had at most 0.8 to 1.5 GB of garbage, and 0.1 GB without. When there are too many, a hand
 * goes round them (CLOCK: Corbató 1968) and drops the first view that was not asked for since the
 * hand last passed it. A hit sets a bit and moves nothing.
 *
 * Memory stays mapped after `destroy()` until no view can reach it:
 * - Every buffer of this thread is detached. A buffer that I/O pins cannot be detached. Then the
 *   thread tries again later, and stays a participant meanwhile (core.ts).
 * - A buffer that the program transferred away (`transfer()`, a transfer list) cannot be found. The
 *   file is then marked as escaped: its memory is returned to the kernel, but its addresses stay
 *   mapped, as zeros, until the process ends. A buffer counts as transferred in three cases: it is
 *   seen detached; it was dropped and then collected before the last check; the thread that made it
 *   ended without leaving the file (participants.ts).
 */
import { totalmem } from "node:os";
import { bufferAt, detach, MAX_BUFFER_BYTES, showValue } from "../../ffi/index.ts";
import { assert } from "../errors/errors.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { BYTES, SLOT_WORDS, USED, ViewTable } from "./view-table.ts";

/** The typed arrays that a range can be viewed as. */
export type ViewConstructor<T> = new (buffer: ArrayBuffer) => T;

const FIRST_SLOTS = 16;
const FIRST_SWEEP = 256;

/** A view that is not kept any more. The program may still hold it. */
interface LetGo {
  readonly buffer: WeakRef<ArrayBuffer>;
  /** Pages. */
  readonly start: number;
  readonly end: number;
}

export class Views {
  private readonly base: number;
  private readonly onEscape: () => void;
  private readonly maxCount: number;
  private readonly maxBytes: number;
  private kept = new ViewTable(FIRST_SLOTS);
  /** First pages of the kept views in the order of the hand: a ring that starts at `hand`. */
  private order = new Int32Array(FIRST_SLOTS);
  private hand = 0;
  private keptCount = 0;
  private keptBytes = 0;
  private letGoViews: LetGo[] = [];
  private sweepAt = FIRST_SWEEP;
  private hasEnded = false;
  /** The slot that `find` found last. A hint. */
  private found = 0;

  /**
   * Keeps at most `maxCount` views of at most `maxBytes` in total. Calls `onEscape` when a buffer
   * was, or may have been, transferred away.
   */
  constructor(base: number, onEscape: () => void, maxCount = 131_072, maxBytes = totalmem()) {
    this.base = base;
    this.onEscape = onEscape;
    this.maxCount = maxCount;
    this.maxBytes = maxBytes;
  }

  /** The kept view of pages [start, end) of that type, or undefined. Its pages may be discarded. */
  find<T>(start: number, end: number, type: ViewConstructor<T>): T | undefined {
    const { kept } = this;
    const slot = kept.find(start);
    const at = SLOT_WORDS * slot;
    const { words } = kept;
    if (words[at + 1] !== end - start) return undefined;
    const view = kept.views[slot];
    this.found = slot;
    if ((type as unknown) === Uint8Array) {
      // Length 0: the buffer was transferred away. Reading only the view touches one cache line
      // less.
      if ((words[at]! & BYTES) === 0 || view!.byteLength === 0) return undefined;
    } else if (kept.types[slot] !== type || kept.buffers[slot]!.detached) return undefined;
    words[at]! |= USED;
    return view as T;
  }

  /**
   * True if no page was discarded since the last check of the pages of `view`, which `find`
   * returned.
   */
  isFresh(view: unknown, discards: number): boolean {
    const { kept, found } = this;
    // False if a property of the view, which is the program's code, asked for another view
    // meanwhile.
    return kept.views[found] === view && kept.words[SLOT_WORDS * found + 2] === discards;
  }

  /**
   * Records that the pages of `view`, which `find` returned, were checked at this value of
   * Word.Discards.
   */
  renew(view: unknown, discards: number): void {
    const { kept, found } = this;
    if (kept.views[found] === view) kept.words[SLOT_WORDS * found + 2] = discards;
  }

  /**
   * The view of pages [start, end): the kept one, or a new one. `discards` is Word.Discards, read
   * before the caller checked that the pages may be viewed.
   *
   * @throws {RangeError} above 4 GiB, or if the element size does not divide the page size
   * @throws {TypeError} if `type` does not construct a view, or ends all views
   */
  get<T>(start: number, end: number, type: ViewConstructor<T>, discards: number): T {
    const { kept } = this;
    let slot = kept.find(start);
    let buffer = kept.buffers[slot];
    if (buffer === undefined || buffer.detached || kept.pagesAt(slot) !== end - start) {
      buffer = this.create(start, end);
      slot = this.kept.find(start);
    } else kept.words[SLOT_WORDS * slot]! |= USED;
    this.kept.words[SLOT_WORDS * slot + 2] = discards;
    if (this.kept.types[slot] === type) return this.kept.views[slot] as T;
    return this.retype(start, buffer, type);
  }

  /**
   * A view of that type. Its constructor may be the program's code, so the buffer is kept first.
   */
  private retype<T>(start: number, buffer: ArrayBuffer, type: ViewConstructor<T>): T {
    if (typeof type !== "function")
      throw new TypeError(
        `Expected type to be a typed array's constructor, got ${showValue(type)}`,
      );
    const view = new type(buffer);
    if (!ArrayBuffer.isView(view))
      throw new TypeError(
        `Expected type to be a typed array's constructor, got ${String(type.name)}`,
      );
    const slot = this.kept.find(start);
    if (this.kept.buffers[slot] === buffer) this.kept.setView(slot, view, type);
    return view;
  }

  private create(start: number, end: number): ArrayBuffer {
    if (this.hasEnded)
      throw new TypeError("Cannot make a view: the file was destroyed during the call");
    assert(start >= 0 && start < end, () => `a view of pages [${start}, ${end})`);
    const bytes = (end - start) * PAGE_SIZE;
    if (bytes > MAX_BUFFER_BYTES) {
      throw new RangeError(
        `Expected a range of at most ${MAX_BUFFER_BYTES} bytes, got ${bytes}; use views()`,
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
      // The new view takes the old one's place in the order.
      this.letGo(slot, start);
    } else {
      if (2 * this.keptCount >= this.order.length) {
        this.grow();
        slot = this.kept.find(start);
      }
      this.order[(this.hand + this.keptCount) & (this.order.length - 1)] = start;
      this.keptCount++;
    }
    this.kept.set(slot, start, end - start, buffer);
    this.keptBytes += bytes;
    return buffer;
  }

  private grow(): void {
    const { kept, order, hand, keptCount } = this;
    this.kept = new ViewTable(2 * order.length);
    this.order = new Int32Array(2 * order.length);
    this.hand = 0;
    for (let i = 0; i < keptCount; i++) {
      const page = order[(hand + i) & (order.length - 1)]!;
      this.order[i] = page;
      this.kept.copy(this.kept.find(page), kept, kept.find(page));
    }
  }

  /** Moves the hand by one view: keeps the view if it was asked for, and drops it if not. */
  private advance(): void {
    const { kept, order, hand } = this;
    const page = order[hand]!;
    const slot = kept.find(page);
    this.hand = (hand + 1) & (order.length - 1);
    if ((kept.words[SLOT_WORDS * slot]! & USED) !== 0) {
      kept.words[SLOT_WORDS * slot]! &= ~USED;
      order[(hand + this.keptCount) & (order.length - 1)] = page;
      return;
    }
    this.keptCount--;
    this.letGo(slot, page);
    kept.remove(slot);
  }

  /** Drops a view. Its user may continue to use it. */
  private letGo(slot: number, page: number): void {
    const buffer = this.kept.buffers[slot]!;
    const pages = this.kept.pagesAt(slot);
    this.keptBytes -= pages * PAGE_SIZE;
    if (this.letGoViews.length >= this.sweepAt) this.sweep();
    if (buffer.detached) this.onEscape();
    else this.letGoViews.push({ buffer: new WeakRef(buffer), start: page, end: page + pages });
  }

  /** Removes buffers that are detached or collected. Either may have been transferred away. */
  private sweep(): void {
    this.letGoViews = this.letGoViews.filter(({ buffer }) => {
      if (buffer.deref()?.detached === false) return true;
      this.onEscape();
      return false;
    });
    this.sweepAt = Math.max(FIRST_SWEEP, 2 * this.letGoViews.length);
  }

  /** Drops every kept view. */
  private letGoAll(): void {
    const { kept, order, hand, keptCount } = this;
    for (let i = 0; i < keptCount; i++) {
      const page = order[(hand + i) & (order.length - 1)]!;
      this.letGo(kept.find(page), page);
    }
    assert(this.keptBytes === 0, () => `${this.keptBytes} bytes are noted for no view`);
    this.kept = new ViewTable(FIRST_SLOTS);
    this.order = new Int32Array(FIRST_SLOTS);
    this.hand = this.keptCount = this.keptBytes = 0;
  }

  /** Detaches every view for which `isEnded(start, end)`, in pages. For checks: O(views). */
  endWhere(isEnded: (start: number, end: number) => boolean): void {
    this.letGoAll();
    this.sweep();
    this.letGoViews = this.letGoViews.filter(
      ({ buffer, start, end }) => !isEnded(start, end) || !detach(buffer.deref()!),
    );
  }

  /** True if the program holds a view. Keeps no view for it any more. */
  hasLive(): boolean {
    this.letGoAll();
    this.sweep();
    return this.letGoViews.length > 0;
  }

  /**
   * Ends all views: detaches every buffer. Returns false if I/O pins one. The caller then calls
   * again later, and does not unmap before.
   */
  detachAll(): boolean {
    this.hasEnded = true;
    this.letGoAll();
    this.sweep();
    this.letGoViews = this.letGoViews.filter(({ buffer }) => !detach(buffer.deref()!));
    return this.letGoViews.length === 0;
  }
}
