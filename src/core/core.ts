/**
 * FileCore: one thread's part of a MemoryFile, and its life in that thread. MemoryFile is the
 * public class; saving, restoring and exporting use the core directly.
 *
 * Life: created or attached → used → left (this thread's views are detached, its loads and saves
 * have ended) → unmapped by the thread that leaves last (control/participants.ts). After `destroy`
 * in one thread, every other thread leaves at its next call or turn of the event loop.
 */
import { Commitment } from "../accounting/commitment.ts";
import { Allocator } from "../allocator/allocator.ts";
import { Changes } from "../changes/changes.ts";
import { DestroyedError, NotLoadedError } from "../errors/errors.ts";
import { Evictions } from "../eviction/evictions.ts";
import { checkBounds, checkOffsets, type RangeLike, throwNoRange } from "../pages/range.ts";
import { Loader } from "../load/loader.ts";
import { LoadState } from "../load/load-state.ts";
import type { LoadHandle } from "../load/load-tables.ts";
import type { Mapping } from "../memory/mapping.ts";
import { Overlay } from "../memory/overlay.ts";
import { Views } from "../memory/views.ts";
import { Checks } from "./checks.ts";
import type { MemoryFileHandle } from "./options.ts";
import { Flag } from "./check-options.ts";
import { attachParts, controlOf, describe, type Parts } from "./parts.ts";
import { unmapMemory } from "./unmap.ts";
import { Releaser } from "../memory/releaser.ts";
import { type Control, Field, Word } from "../control/control.ts";
import { letGo } from "../control/holdings.ts";
import { Participants } from "../control/participants.ts";
import { StopPart } from "../control/stops.ts";
import { PAGE_SIZE, PAGES_PER_CHUNK, pageOf } from "../pages/units.ts";

/** How long to wait before pinned buffers are tried again. The wait doubles each time. */
const FIRST_PINNED_RETRY_MS = 1;
const LAST_PINNED_RETRY_MS = 100;

/** This thread's cores by Field.FileId: one for each file that it has not left. */
const cores = new Map<number, FileCore>();

/**
 * The core of a file that some thread of this process shares.
 *
 * @throws {TypeError} for a handle that no file of this process made
 * @throws {DestroyedError} {TooManyThreadsError}
 */
export function attachCore(handle: MemoryFileHandle, isReadOnly = false): FileCore {
  const control = controlOf(handle);
  const load = handle.load === null ? null : checkLoadHandle(handle.load);
  const existing = cores.get(control.fields[Field.FileId]!);
  if (existing !== undefined) {
    existing.requireLive("MemoryFile.attach()");
    existing.isReadOnly &&= isReadOnly;
    existing.joinStops();
    return existing;
  }
  // Calls that may throw come before this thread takes a slot.
  const state = load === null ? undefined : new LoadState(load);
  const parts = attachParts(control, handle.name);
  const { base } = parts.mapping;
  const loader = state === undefined ? undefined : new Loader({ control, state, base });
  const core = new FileCore(parts, loader);
  core.isReadOnly = isReadOnly;
  core.joinStops();
  return core;
}

function evictionOf(flags: number): "disabled" | "manual" | "enabled" {
  if ((flags & Flag.EvictsAtOnce) !== 0) return "disabled";
  return (flags & Flag.EvictsManually) !== 0 ? "manual" : "enabled";
}

function checkLoadHandle(load: LoadHandle): LoadHandle {
  const { tables, group } = load ?? {};
  if (!(tables instanceof SharedArrayBuffer) || !(group instanceof SharedArrayBuffer))
    throw new TypeError("Expected handle.load to be null or made by MemoryFile.share()");
  return load;
}

export class FileCore {
  readonly name: string;
  readonly control: Control;
  readonly words: Int32Array<SharedArrayBuffer>;
  readonly mapping: Mapping;
  readonly allocator: Allocator;
  readonly commitment: Commitment;
  readonly changes: Changes;
  readonly evictions: Evictions;
  readonly releaser: Releaser;
  readonly views: Views;
  readonly expectHugepages: boolean;
  private readonly isOnDisk: boolean;
  readonly advises: { readonly huge: boolean; readonly small: boolean };
  /** Undefined for a file that was not restored. */
  readonly loader: Loader | undefined;
  /** Resolves when the load has filled its cache or given up; undefined if it has no cache. */
  loadEnd: Promise<void> | undefined;
  /** The pages that `requireRange` checked last, because a range's own bounds may be getters. */
  startPage = 0;
  endPage = 0;
  readonly tables: Parts["tables"];
  private holding: number;
  private readonly participants: Participants;
  readonly stops: StopPart;
  /** This thread has promised only to read. */
  isReadOnly = false;
  /** Work in other threads that reads the memory: it stays mapped until all work has ended. */
  private readonly holds = new Set<Promise<unknown>>();
  private hasLeft = false;
  /** True once this thread has seen that all pages are loaded. It does not check again. */
  private hasAllPages = false;

  constructor(parts: Parts, loader?: Loader) {
    const { control, mapping } = parts;
    this.loader = loader;
    const overlay = loader?.state.handle.overlay ?? null;
    if (overlay !== null) mapping.overlay = new Overlay(overlay, mapping);
    this.name = parts.name;
    this.control = control;
    this.words = control.words;
    this.mapping = mapping;
    this.tables = parts.tables;
    this.holding = parts.holding;
    const flags = control.fields[Field.Flags]!;
    this.expectHugepages = (flags & Flag.ExpectHugepages) !== 0;
    this.isOnDisk = (flags & Flag.OnDisk) !== 0;
    this.advises = {
      huge: (flags & Flag.AdviseHugepage) !== 0,
      small: (flags & Flag.AdviseNoHugepage) !== 0,
    };
    this.commitment = new Commitment(control);
    this.changes = new Changes(control, {
      fd: mapping.fd,
      base: mapping.base,
      sizePages: () => this.words[Word.SizePages]!,
    });
    mapping.onDecommit = (start, end) => this.changes.mark(start / PAGE_SIZE, end / PAGE_SIZE);
    this.allocator = new Allocator(control, parts.tables, parts.slot, {
      grow: (chunks, huge) => mapping.grow(this.sizeBytes, chunks, huge),
      cancelLoad: (start, end) => loader?.state.cancel(control, start, end) ?? false,
      // A dropped page whose read failed counts as read: cancel forgets the failure.
      hasNoReads: (start, end) => loader?.state.cancel(control, start, end) !== true,
      nextData: (page) => this.nextData(page),
      nextTouched: (page) => mapping.nextData(page * PAGE_SIZE) / PAGE_SIZE,
      uncommitted: (start, end) => {
        if (this.commitment.isActive) this.commitment.markUncommitted(start, end);
      },
      recovered: (set) => this.commitment.recover(set),
    });
    this.releaser = new Releaser(control.words, this.allocator, mapping, () => !this.hasLeft);
    this.views = new Views(mapping.base, () => Atomics.store(control.words, Word.Escaped, 1));
    this.evictions = new Evictions(control, parts.slot, evictionOf(flags));
    this.participants = new Participants(control, parts.slot, describe(this.name), {
      onDestroyed: () => this.leave(),
      onStop: () => this.stops.safepoint(),
    });
    this.stops = new StopPart(control, parts.slot);
    if ((flags & Flag.Checks) !== 0) this.beginChecks();
    cores.set(control.fields[Field.FileId]!, this);
  }

  /** Gives this file its own `requireRange`, so files without checks keep the fast one. */
  private beginChecks(): void {
    const checks = new Checks(this);
    const { backing } = this.allocator;
    backing.discarded = (start, end) => checks.discarded(start, end);
    backing.whereDropped = (start, end) => checks.whereDropped(start, end);
    const requireRange = this.requireRange.bind(this);
    this.requireRange = (range, method) => {
      requireRange(range, method);
      checks.endStaleViews();
    };
    const dropPages = this.dropPages.bind(this);
    this.dropPages = (start, end) => {
      dropPages(start, end);
      checks.endStaleViews();
    };
  }

  /** The file's size: a multiple of CHUNK_SIZE. It only grows. */
  get sizeBytes(): number {
    return this.words[Word.SizePages]! * PAGE_SIZE;
  }

  /** The most bytes that may be in use at once. */
  get limitBytes(): number {
    return this.control.fields[Field.LimitPages]! * PAGE_SIZE;
  }

  /** True once this thread may not touch the memory any more. */
  get isDetached(): boolean {
    return this.hasLeft;
  }

  /** True while a restore has pages outstanding or failed, so that each page must be checked. */
  get mayMissPages(): boolean {
    if (this.loader === undefined || this.hasAllPages) return false;
    // Atomic: a thread that reads 0 may read the pages, after the stores of the loading threads.
    this.hasAllPages = Atomics.load(this.words, Word.Loading) === 0;
    return !this.hasAllPages;
  }

  /**
   * Word.Discards. Read atomically if other threads use the file: the JIT may hoist a plain read
   * out of a loop, and a thread that only views would never see the file's end.
   */
  get discards(): number {
    const { words } = this;
    return words[Word.Shared] === 0 ? words[Word.Discards]! : Atomics.load(words, Word.Discards);
  }

  /** @throws {DestroyedError} naming the method, if any thread has destroyed the file */
  requireLive(method: string): void {
    if (this.words[Word.Destroyed] === 0) return;
    this.leave();
    throw new DestroyedError(describe(this.name), method);
  }

  /** As `requireLive`, for a call that has begun. */
  requireStillLive(method: string): void {
    if (this.words[Word.Destroyed] === 0) return;
    this.leave();
    throw new DestroyedError(describe(this.name), method, true);
  }

  /**
   * Sets `startPage` and `endPage`.
   *
   * @throws {DestroyedError} {TypeError} {RangeError} unless the range is within the live file
   */
  requireRange(range: RangeLike, method: string): void {
    // With `range?.start`, view, incRef and decRef took up to a tenth longer, because the JIT then
    // infers less about the values.
    if (range === undefined || range === null) this.throwNoRange(range, method);
    // Read before all checks: a getter is the program's code, and may even destroy the file.
    const { start, end } = range;
    this.requireLive(method);
    checkOffsets(range, start, end);
    const startPage = pageOf(start);
    const endPage = pageOf(end);
    checkBounds(start, end, startPage, endPage, this.words[Word.SizePages]!);
    this.startPage = startPage;
    this.endPage = endPage;
  }

  private throwNoRange(range: unknown, method: string): never {
    this.requireLive(method);
    throwNoRange(range);
  }

  /** Drops a reference of each page. Schedules the release of waste. @throws as `decRef` */
  dropPages(startPage: number, endPage: number): void {
    if (this.allocator.decRef(startPage, endPage)) this.releaser.schedule();
  }

  /**
   * @throws {RangeError} if a page has no reference
   * @throws {NotLoadedError} if a page is not loaded
   */
  requireReadable(startPage: number, endPage: number): void {
    this.allocator.requireReferenced(startPage, endPage);
    if (!this.mayMissPages || this.loader!.isLoaded(startPage, endPage)) return;
    const cause = this.loader!.failureOf(startPage, endPage);
    throw new NotLoadedError(
      startPage * PAGE_SIZE,
      endPage * PAGE_SIZE,
      cause === undefined ? undefined : { cause },
    );
  }

  /** The views of the pages, one for each chunk. @throws as `requireReadable` */
  viewsOf(startPage: number, endPage: number): Uint8Array<ArrayBuffer>[] {
    const { discards, loader } = this;
    loader?.noteUse(startPage, endPage);
    this.requireReadable(startPage, endPage);
    const views: Uint8Array<ArrayBuffer>[] = [];
    for (let start = startPage; start < endPage; ) {
      const end = Math.min(endPage, start - (start % PAGES_PER_CHUNK) + PAGES_PER_CHUNK);
      views.push(this.views.get(start, end, Uint8Array<ArrayBuffer>, discards));
      start = end;
    }
    return views;
  }

  /** The first page at or after `page` that may be committed. Some file systems cannot say. */
  nextData(page: number): number {
    if (this.isOnDisk || this.words[Word.UnseenCommits] !== 0) return page;
    const { overlay, capacityBytes } = this.mapping;
    if (overlay !== null) return overlay.findData(page, capacityBytes / PAGE_SIZE).start;
    return this.mapping.nextData(page * PAGE_SIZE) / PAGE_SIZE;
  }

  /** For accounting: the pages, all used, have just been made uncommitted. */
  noteUncommitted(start: number, end: number): void {
    if (!this.commitment.isActive) return;
    this.allocator.lock();
    try {
      this.commitment.markUncommitted(start, end);
    } finally {
      this.allocator.unlock();
    }
  }

  /** For accounting: the pages, all used, were just committed in a way that scans do not see. */
  noteCommitted(start: number, end: number): void {
    this.allocator.lock();
    try {
      this.commitment.activate();
      this.commitment.markCommitted(start, end);
    } finally {
      this.allocator.unlock();
    }
  }

  /** True while a load, save or eviction is under way in this thread. */
  get isBusy(): boolean {
    return this.holds.size > 0 || this.loader?.isFinished === false || this.evictions.isEvicting;
  }

  /** Keeps the memory mapped until `work` has ended, with success or not. Returns `work`. */
  hold<T>(work: Promise<T>): Promise<T> {
    this.holds.add(work);
    const forget = () => this.holds.delete(work);
    work.then(forget, forget);
    return work;
  }

  /** Other threads can use the file, so this thread now stops when one of them saves it. */
  joinStops(): void {
    if (!this.isReadOnly) this.stops.begin();
  }

  /** Other threads may now use the file, and this thread takes its lock. */
  share(): void {
    Atomics.store(this.words, Word.Shared, 1);
    // Another thread may have it now, so the file does not end with this thread.
    this.letGo();
  }

  private letGo(): void {
    letGo(this.holding);
    this.holding = -1;
  }

  /** Ends the file for all its threads; see MemoryFile.destroy. */
  destroy(): void {
    if (this.hasLeft) return;
    this.participants.destroy();
    // Another thread may be asleep in awaitLoadSync, and a third may run the load.
    this.loader?.requestStop();
    this.leave();
  }

  /**
   * This thread leaves a file that others still use. Precondition: it has no loads, saves or views
   * of it.
   */
  detach(): void {
    this.endUse();
    this.participants.leave(() => unmapMemory(this.control, this));
  }

  /** This thread stops using the file: now if it can, else when its work has ended. */
  leave(): void {
    if (this.hasLeft) return;
    this.endUse();
    if (this.views.detachAll() && (this.loader?.isFinished ?? true) && this.holds.size === 0) {
      this.loader?.close();
      this.unmapIfLast();
    } else {
      void this.leaveLater();
    }
  }

  private endUse(): void {
    this.hasLeft = true;
    cores.delete(this.control.fields[Field.FileId]!);
    this.allocator.detach();
    this.commitment.leave();
    this.changes.detach();
    this.stops.end();
    this.evictions.close();
  }

  private async leaveLater(): Promise<void> {
    await this.loader?.stop(new DestroyedError(describe(this.name), "awaitLoad()", true));
    await Promise.allSettled(this.holds);
    // Buffers that I/O pins cannot be detached before the I/O ends, and no event reports its end.
    for (let waitMs = FIRST_PINNED_RETRY_MS; !this.views.detachAll(); ) {
      await new Promise((resolve) => setTimeout(resolve, waitMs).unref());
      waitMs = Math.min(2 * waitMs, LAST_PINNED_RETRY_MS);
    }
    this.unmapIfLast();
  }

  private unmapIfLast(): void {
    this.letGo();
    this.participants.leave(() => unmapMemory(this.control, this));
  }
}
