/**
 * One thread's view of a store's memory: a typed array for each window, and the beginning and end
 * of every operation.
 *
 * A read calls `beginRead`, then reads `words` and `bytes`. While `isMissing` it calls
 * `requireLoaded` before each read. A write calls `beginWrite`, changes words by `set` (which notes
 * the old value), then calls `commit` or `rollBack`; `write` does both. A nested write uses the
 * outer one's lock but not its journal: each operation commits on its own.
 *
 * Invariants: typed arrays cover exactly the windows' ranges. Those were checked against the
 * MemoryFile when the table was read, so no stored number can lead outside them. What an operation
 * frees for good (ranges of the file, memory for the kernel) is freed after its commit. What it
 * took is given back in its roll-back.
 */
import type { FileCore } from "../core/core.ts";
import { DestroyedError, NotLoadedError } from "../errors/errors.ts";
import { CorruptStoreError, ReadOnlyStoreError } from "../errors/store.ts";
import { coreOf, type MemoryFile } from "../file/memory-file.ts";
import { Word } from "../control/control.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { note, putBack, putBackCopies } from "./journal.ts";
import {
  bitmapWords,
  MAX_WINDOWS,
  PAGES_PER_WINDOW,
  ROOT_BYTES,
  ROOT_WORDS,
  Root,
  STORE_PAGE,
  WINDOWS_AT,
  WindowKind,
  WindowWord,
  windowAt,
} from "./layout.ts";
import type { StoreControl } from "./control.ts";
import { HugePages } from "./huge-pages.ts";
import { rootOf } from "./store-file.ts";

/** Word.Discards has it once in 2^32 changes: the file does not treat a store's view as checked. */
export const NO_LOOK = -1;
/** Equals no version of the table of windows. */
const NOT_READ = 0.5;

export class Arena {
  readonly file: MemoryFile;
  readonly control: StoreControl;
  /** Replaced after the file's `refresh`. */
  core: FileCore;
  readonly isReadOnly: boolean;
  /** By window; undefined where no window is, or none that this thread has looked at. */
  readonly words: (Int32Array<ArrayBuffer> | undefined)[] = [];
  readonly bytes: (Uint8Array<ArrayBuffer> | undefined)[] = [];
  /** Word of a segment's page records. */
  readonly recordsAt: number[] = [];
  /** Byte of the MemoryFile at which each window begins, and its kind. */
  readonly starts: number[] = [];
  readonly kinds: number[] = [];
  /** Window 0. */
  root: Int32Array<ArrayBuffer>;
  /** True if this operation must check that pages are loaded, or note that it uses them. */
  isMissing = false;
  /** True once this thread has closed the store. */
  isClosed = false;
  huge: HugePages;
  /** How often the file was refreshed. Cached names are valid while it is unchanged. */
  adoptions = 0;
  private seeds: readonly [number, number] | undefined;
  private windowsVersion = 0;
  private batchDepth = 0;
  /** Ranges of the file (start, end) that the operation took. Its roll-back frees them. */
  private taken: number[] = [];
  private dropped: number[] = [];

  /** @param rootStart byte of the file at which the root begins; its fixed part is loaded */
  constructor(file: MemoryFile, control: StoreControl, rootStart: number, isReadOnly: boolean) {
    this.file = file;
    this.core = coreOf(file);
    this.control = control;
    this.isReadOnly = isReadOnly;
    this.huge = new HugePages(this.core.mapping);
    this.root = this.mapWindow(0, rootStart, ROOT_BYTES);
  }

  /** Begins the reads of one operation. @throws {DestroyedError} */
  beginRead(method: string): void {
    if (this.core.words[Word.Destroyed] !== 0 || this.isClosed) this.adopt(method);
    const { core } = this;
    if (this.mayBeRaced && !this.isReadOnly) core.stops.safepoint();
    this.isMissing = core.mayMissPages || core.loader?.isRecording === true;
    const { root } = this;
    if (root.length !== ROOT_WORDS) this.remap();
    if (this.root[Root.WindowsVersion] !== this.windowsVersion) this.refresh();
  }

  /**
   * Reads the table of windows again if it changed. Takes the lock, because a writer may be
   * changing it.
   */
  refresh(): void {
    if (this.root[Root.WindowsVersion] === this.windowsVersion) return;
    if (this.mayBeRaced) this.locked(() => this.readWindows());
    else this.readWindows();
  }

  /**
   * Uses the memory that the file has after a refresh. @throws {DestroyedError} if the file was not
   * refreshed but ended
   */
  private adopt(method: string): void {
    const core = coreOf(this.file);
    // A refresh gives new memory to the store that is refreshed, and ends those that attached.
    const end = this.isClosed ? "close()" : "close() or refresh()";
    if (this.isClosed || core === this.core)
      throw new DestroyedError("the store", method, false, end);
    const start = rootOf(this.file);
    for (let window = 0; window < this.words.length; window++) this.forgetWindow(window);
    this.core = core;
    this.huge = new HugePages(core.mapping);
    this.root = this.mapWindow(0, start, ROOT_BYTES);
    this.adoptions++;
    this.windowsVersion = NOT_READ;
  }

  /**
   * Runs `change` as one operation: with the lock, and either all of it or nothing is done.
   *
   * @throws what `change` throws; the store is then as before
   */
  write<T>(method: string, change: () => T): T {
    this.beginWrite(method);
    try {
      const result = change();
      this.commit();
      return result;
    } catch (error) {
      this.rollBack();
      throw error;
    } finally {
      this.endWrite();
    }
  }

  /** @throws {ReadOnlyStoreError} {DestroyedError} {FileFailedError} */
  beginWrite(method: string): void {
    if (this.isReadOnly) throw new ReadOnlyStoreError(method);
    if (this.core.words[Word.Destroyed] !== 0 || this.isClosed) this.adopt(method);
    // Before the lock: a thread that stops for a save must not hold it.
    if (this.mayBeRaced) this.core.stops.safepoint();
    const isInherited = this.batchDepth === 0 && this.control.lock();
    this.batchDepth++;
    try {
      if (isInherited) this.recover();
      this.beginRead(method);
    } catch (error) {
      this.endWrite();
      throw error;
    }
  }

  endWrite(): void {
    if (--this.batchDepth === 0) this.control.unlock();
  }

  /** True if another thread may write while this one reads. */
  get mayBeRaced(): boolean {
    return this.control.isShared && this.batchDepth === 0;
  }

  /** Runs `read` with the lock: no other thread writes meanwhile. */
  readLocked<T>(read: () => T): T {
    return this.locked(() => {
      this.beginRead("a read");
      return read();
    });
  }

  private locked<T>(run: () => T): T {
    const isInherited = this.batchDepth === 0 && this.control.lock();
    this.batchDepth++;
    try {
      if (isInherited) this.recover();
      return run();
    } finally {
      this.endWrite();
    }
  }

  /** Runs several operations with the lock taken once. */
  batch<T>(method: string, run: () => T): T {
    this.beginWrite(method);
    try {
      return run();
    } finally {
      this.endWrite();
    }
  }

  /** @throws {NotLoadedError} if any page of the file is not loaded */
  requireAllLoaded(): void {
    if (!this.isMissing || this.core.loader!.isLoaded(0, this.core.words[Word.SizePages]!)) return;
    throw new NotLoadedError(0, this.core.sizeBytes);
  }

  /** Undoes what a writer had half done when it died, and clears its marks for readers. */
  private recover(): void {
    this.undo();
    this.control.clearMarks();
  }

  /** Ends an operation that succeeded. */
  commit(): void {
    this.root[Root.JournalCount] = 0;
    if (this.control.hasMarks) this.control.unmarkAll();
    if (this.taken.length > 0) this.taken.length = 0;
    if (this.dropped.length > 0) this.dropRanges();
  }

  /**
   * Puts back what the journal holds. The versions that threads compare still increase, so that one
   * version never stands for two states.
   */
  private undo(): void {
    const { root } = this;
    const windows = root[Root.WindowsVersion]!;
    const names = root[Root.NamesVersion]!;
    // Copies first: a copy's block may be in a window that the operation made.
    putBackCopies(root, (window) => {
      if (window > 0 && window < root[Root.WindowCount]!) this.readWindow(window);
      return this.words[window];
    });
    // Then the root: its table says which windows there were.
    putBack(root, [root]);
    this.readWindows();
    putBack(root, this.words);
    root[Root.JournalCount] = 0;
    if (root[Root.WindowsVersion] !== windows) root[Root.WindowsVersion] = (windows + 1) | 0;
    if (root[Root.NamesVersion] !== names) root[Root.NamesVersion] = (names + 1) | 0;
    this.windowsVersion = root[Root.WindowsVersion]!;
  }

  /** Undoes the operation, which failed. */
  rollBack(): void {
    this.undo();
    if (this.control.hasMarks) this.control.unmarkAll();
    this.dropped.length = 0;
    const { taken } = this;
    this.taken = [];
    for (let i = 0; i < taken.length; i += 2)
      this.file.decRef({ start: taken[i]!, end: taken[i + 1]! });
  }

  private dropRanges(): void {
    const { dropped } = this;
    this.dropped = [];
    this.readWindows();
    for (let i = 0; i < dropped.length; i += 2)
      this.file.decRef({ start: dropped[i]!, end: dropped[i + 1]! });
  }

  /**
   * Changes a word; the journal remembers what it held. @throws {CorruptStoreError}
   * {NotLoadedError}
   */
  set(window: number, word: number, value: number): void {
    const words = this.words[window];
    if (words === undefined || word < 0 || word >= words.length) throw this.outside(window, word);
    if (this.isMissing) this.requireLoaded(window, word, 1);
    note(this.root, window, word, words[word]!);
    words[word] = value;
  }

  /** Changes a word of the root. */
  setRoot(word: number, value: number): void {
    const { root } = this;
    note(root, 0, word, root[word]!);
    root[word] = value;
  }

  /** @throws {CorruptStoreError} if the window has no such word @throws {NotLoadedError} */
  get(window: number, word: number): number {
    const words = this.words[window];
    if (words === undefined || word < 0 || word >= words.length) throw this.outside(window, word);
    if (this.isMissing) this.requireLoaded(window, word, 1);
    return words[word]!;
  }

  outside(window: number, word: number): CorruptStoreError {
    return new CorruptStoreError(
      `The store refers to word ${word} of window ${window}, outside it`,
    );
  }

  /**
   * Precondition: the words are in the window. @throws {NotLoadedError} if one of them is not
   * loaded
   */
  requireLoaded(window: number, word: number, count: number): void {
    const start = this.starts[window]! + 4 * word;
    const first = Math.floor(start / PAGE_SIZE);
    const last = Math.floor((start + 4 * count - 1) / PAGE_SIZE) + 1;
    const { loader } = this.core;
    loader?.noteUse(first, last);
    if (loader?.isLoaded(first, last) !== false) return;
    const cause = loader.failureOf(first, last);
    const options = cause === undefined ? undefined : { cause };
    throw new NotLoadedError(first * PAGE_SIZE, last * PAGE_SIZE, options);
  }

  /**
   * Allocates a range of the file for a window. The operation's roll-back frees it. @throws
   * {OutOfMemoryError}
   */
  takeRange(lengthBytes: number): number {
    const { start, end } = this.file.allocate(lengthBytes);
    this.taken.push(start, end);
    return start;
  }

  /** Frees a window's range when the operation commits. */
  dropRange(window: number): void {
    const start = this.starts[window]!;
    this.dropped.push(start, start + this.bytes[window]!.length);
  }

  /** Makes the typed arrays of a window of this thread. */
  mapWindow(window: number, start: number, lengthBytes: number): Int32Array<ArrayBuffer> {
    const first = start / PAGE_SIZE;
    const end = first + Math.ceil(lengthBytes / PAGE_SIZE);
    const view = this.core.views.get(first, end, Uint8Array<ArrayBuffer>, NO_LOOK);
    const words = new Int32Array(view.buffer, 0, lengthBytes / 4);
    this.words[window] = words;
    this.bytes[window] = new Uint8Array(view.buffer, 0, lengthBytes);
    this.starts[window] = start;
    return words;
  }

  /** A program transferred a view's buffer, and with it the whole window: maps the window again. */
  private remap(): void {
    this.root = this.mapWindow(0, this.starts[0]!, ROOT_BYTES);
    for (let window = 1; window < this.words.length; window++) this.words[window] = undefined;
    this.readWindows();
  }

  /**
   * Reads the table of windows again: maps new windows, and drops those that are gone. @throws
   * {CorruptStoreError}
   */
  readWindows(): void {
    const { root } = this;
    if (this.isMissing) this.requireLoaded(0, 0, WINDOWS_AT);
    const seeds = [root[Root.SeedLow]!, root[Root.SeedHigh]!] as const;
    this.seeds ??= seeds;
    if (this.seeds[0] !== seeds[0] || this.seeds[1] !== seeds[1])
      throw new CorruptStoreError("Another store is in the place of this one");
    const count = root[Root.WindowCount]!;
    if (count < 1 || count > MAX_WINDOWS)
      throw new CorruptStoreError(`Expected 1 to ${MAX_WINDOWS} windows, found ${count}`);
    if (this.isMissing) this.requireLoaded(0, windowAt(0), windowAt(count) - windowAt(0));
    for (let window = 1; window < count; window++) this.readWindow(window);
    for (let window = count; window < this.words.length; window++) this.forgetWindow(window);
    this.windowsVersion = root[Root.WindowsVersion]!;
  }

  private readWindow(window: number): void {
    const { root } = this;
    const at = windowAt(window);
    const pages = root[at + WindowWord.Pages]!;
    if (pages === 0) {
      this.forgetWindow(window);
      return;
    }
    const start = root[at + WindowWord.Start]! * PAGE_SIZE;
    const lengthBytes = pages * STORE_PAGE;
    if (this.words[window]?.length === lengthBytes / 4 && this.starts[window] === start) return;
    if (pages < 0 || pages > PAGES_PER_WINDOW || start < 0 || lengthBytes % PAGE_SIZE !== 0)
      throw new CorruptStoreError(`Window ${window} has ${pages} pages at byte ${start}`);
    const kind = root[at + WindowWord.Kind]!;
    if (kind !== WindowKind.Segment && kind !== WindowKind.Large)
      throw new CorruptStoreError(`Window ${window} has no kind: ${kind}`);
    const first = start / PAGE_SIZE;
    try {
      const last = first + lengthBytes / PAGE_SIZE;
      if (last * PAGE_SIZE > this.core.sizeBytes) throw new RangeError("It ends beyond the file");
      this.core.allocator.requireReferenced(first, last);
    } catch (cause) {
      throw new CorruptStoreError(`Window ${window} has pages that are not allocated`, { cause });
    }
    this.mapWindow(window, start, lengthBytes);
    this.recordsAt[window] = bitmapWords(pages);
    this.kinds[window] = kind;
  }

  private forgetWindow(window: number): void {
    this.words[window] = undefined;
    this.bytes[window] = undefined;
    this.starts[window] = -1;
    this.kinds[window] = 0;
  }
}
