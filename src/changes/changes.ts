/**
 * The pages of a file that were written since its base, the checkpoint that an incremental save
 * builds on. Before the first save that asks, nothing is tracked, and tracking takes no time.
 *
 * Each take of a save goes into `changed`, which is cleared when a save has been committed, so a
 * failed save loses nothing. A thread that dies in a save may have taken pages from the kernel
 * without recording them. So the base is unknown until a save has succeeded (`BaseKnown`).
 *
 * Marks: changes that no tracker sees must be marked here, after the memory was changed, and also
 * before if a thread might die in between. A take reports marked pages like written ones.
 */
import { closeFile, openPagemap, openUserfaultfd } from "../../ffi/index.ts";
import type { BaseName } from "../control/base-name.ts";
import { type Control, Field, Word } from "../control/control.ts";
import { forEachWord } from "../pages/bits.ts";
import { atOnce, type Slices } from "../threads/slices.ts";
import { isThreadAlive, THREAD_ID } from "../threads/thread.ts";
import { type PageRuns, RunCollector, uniteRuns } from "./page-runs.ts";
import { TrackingCounter, TrackingTables, TrackingWord } from "./tables.ts";
import type { ChangeTracker, TakeOptions } from "./tracker.ts";
import { type TrackedMemory, WrittenPages } from "./written-pages.ts";

/** Counters of the tracking of a file. */
export interface ChangeCounters {
  /** "userfaultfd" once a save has needed it, if the kernel allows it. */
  readonly detection: "userfaultfd" | null;
  readonly takes: number;
  readonly takeMs: number;
  /** Pages that takes reported, including marked ones. */
  readonly reportedPages: number;
  readonly markedPages: number;
  /** Huge pages that were split, and made huge again. */
  readonly splitUnits: number;
  readonly joinedUnits: number;
}

/** One thread's part of the tracking. */
export class Changes implements ChangeTracker {
  readonly detection = "userfaultfd";
  private readonly control: Control;
  private readonly memory: TrackedMemory;
  private openTables: TrackingTables | undefined;
  private tracker: WrittenPages | undefined;

  constructor(control: Control, memory: TrackedMemory) {
    this.control = control;
    this.memory = memory;
  }

  /** True once a save has begun to track. Read after memory was changed. */
  get isActive(): boolean {
    return Atomics.load(this.control.words, Word.Tracking) !== 0;
  }

  /** Pages [start, end) were changed, or will be, in a way that no tracker sees. */
  mark(start: number, end: number): void {
    if (!this.isActive) return;
    const tables = this.tables();
    tables.cover(this.memory.sizePages());
    const { marked, words } = tables;
    forEachWord(start, end, (word, mask) => void Atomics.or(marked, word, mask));
    Atomics.store(words, TrackingWord.HasMarks, 1);
  }

  private tables(): TrackingTables {
    const { fields } = this.control;
    this.openTables ??= new TrackingTables(
      fields[Field.TrackingAddress]!,
      fields[Field.CapacityPages]!,
    );
    return this.openTables;
  }

  /**
   * Begins to track, unless another thread has. Precondition: the file's lock is held, and
   * `trackingUnavailable()` is null.
   *
   * @throws {SyscallError} with nothing left open
   */
  activate(): void {
    const { words, fields } = this.control;
    if (words[Word.Tracking] !== 0) return;
    const capacityPages = fields[Field.CapacityPages]!;
    const descriptors = openDescriptors();
    try {
      fields[Field.TrackingAddress] = mapTables(capacityPages, descriptors);
    } catch (error) {
      for (const fd of descriptors) closeFile(fd);
      throw error;
    }
    Atomics.store(words, Word.Tracking, 1);
  }

  /**
   * Becomes the save that owns the tracker, until `end`. False if another save owns it.
   * Precondition: active.
   */
  tryBegin(): boolean {
    const tables = this.tables();
    const { words } = tables;
    const owner = Atomics.load(words, TrackingWord.Owner);
    if (owner !== 0 && isThreadAlive(owner)) return false;
    if (Atomics.compareExchange(words, TrackingWord.Owner, owner, THREAD_ID) !== owner)
      return false;
    // The dead owner may have taken pages without recording them.
    if (owner !== 0) words[TrackingWord.BaseKnown] = 0;
    this.tracker = new WrittenPages(tables, this.memory);
    return true;
  }

  /** Called when the save has ended, with success or not. Another may begin. */
  end(): void {
    this.tracker?.maintain();
    this.tracker = undefined;
    Atomics.store(this.tables().words, TrackingWord.Owner, 0);
  }

  /**
   * Owner. True if `changed` has all differences from the base of that name after the next take.
   */
  knowsBase([low, high]: BaseName): boolean {
    const { words } = this.tables();
    return (
      words[TrackingWord.BaseKnown] === 1 &&
      words[TrackingWord.BaseLow] === low &&
      words[TrackingWord.BaseHigh] === high
    );
  }

  /** Owner. A save of the instant of the last take was committed under that name. */
  setBase([low, high]: BaseName): void {
    const { words, changed } = this.tables();
    changed.fill(0);
    words[TrackingWord.BaseLow] = low;
    words[TrackingWord.BaseHigh] = high;
    words[TrackingWord.BaseKnown] = 1;
  }

  /** Owner. Takes, and records the reported pages as changed since the base. */
  take(used: PageRuns, options?: TakeOptions): RunCollector {
    return atOnce(this.takeInSlices(used, options));
  }

  /** The same in slices. Pages written during a pause may be in this take or in the next one. */
  *takeInSlices(used: PageRuns, options?: TakeOptions): Slices<RunCollector> {
    const tables = this.tables();
    const { words, counters } = tables;
    const began = performance.now();
    words[TrackingWord.Takes] = (words[TrackingWord.Takes]! + 1) | 0;
    tables.cover(this.memory.sizePages());
    const marks = this.takeMarks(tables);
    const written = yield* this.tracker!.takeInSlices(used, options);
    const taken = marks === undefined ? written : uniteRuns(marks.runs, written.runs);
    const { start, length } = taken.runs;
    for (let i = 0; i < start.length; i++) noteChanged(tables, start[i]!, start[i]! + length[i]!);
    counters[TrackingCounter.Takes]!++;
    counters[TrackingCounter.ReportedPages]! += taken.pages;
    counters[TrackingCounter.MarkedPages]! += marks?.pages ?? 0;
    counters[TrackingCounter.TakeMs]! += performance.now() - began;
    return taken;
  }

  /** Called before the tracker looks: later marks are left for the next take. */
  private takeMarks({ words, marked }: TrackingTables): RunCollector | undefined {
    if (Atomics.exchange(words, TrackingWord.HasMarks, 0) === 0) return undefined;
    const marks = new RunCollector();
    for (let word = 0; word < marked.length; word++) {
      if (marked[word] === 0) continue;
      addBits(marks, word, Atomics.exchange(marked, word, 0));
    }
    return marks;
  }

  /** Owner. The pages that may differ from the base, at the last take. */
  changed(): RunCollector {
    const { changed } = this.tables();
    const runs = new RunCollector();
    for (let word = 0; word < changed.length; word++)
      if (changed[word] !== 0) addBits(runs, word, changed[word]!);
    return runs;
  }

  counters(): ChangeCounters {
    if (!this.isActive) return NOTHING_TRACKED;
    const { counters } = this.tables();
    return {
      detection: "userfaultfd",
      takes: counters[TrackingCounter.Takes]!,
      takeMs: counters[TrackingCounter.TakeMs]!,
      reportedPages: counters[TrackingCounter.ReportedPages]!,
      markedPages: counters[TrackingCounter.MarkedPages]!,
      splitUnits: counters[TrackingCounter.SplitUnits]!,
      joinedUnits: counters[TrackingCounter.JoinedUnits]!,
    };
  }

  /** This thread has left the file. */
  detach(): void {
    this.openTables?.detach();
    this.openTables = undefined;
  }

  /** No thread uses the file any more. */
  close(): void {
    if (!this.isActive) return;
    const { words } = this.tables();
    const descriptors = [words[TrackingWord.Userfaultfd]!, words[TrackingWord.Pagemap]!];
    this.detach();
    const { fields } = this.control;
    TrackingTables.unmap(fields[Field.TrackingAddress]!, fields[Field.CapacityPages]!);
    for (const fd of descriptors) closeFile(fd);
  }
}

/** @throws {SyscallError} with nothing left open */
function openDescriptors(): number[] {
  const userfaultfd = openUserfaultfd();
  try {
    return [userfaultfd, openPagemap()];
  } catch (error) {
    closeFile(userfaultfd);
    throw error;
  }
}

function mapTables(capacityPages: number, [userfaultfd, pagemap]: readonly number[]): number {
  const address = TrackingTables.map(capacityPages);
  const tables = new TrackingTables(address, capacityPages);
  tables.words[TrackingWord.Userfaultfd] = userfaultfd!;
  tables.words[TrackingWord.Pagemap] = pagemap!;
  tables.detach();
  return address;
}

const NOTHING_TRACKED: ChangeCounters = Object.freeze({
  detection: null,
  takes: 0,
  takeMs: 0,
  reportedPages: 0,
  markedPages: 0,
  splitUnits: 0,
  joinedUnits: 0,
});

function noteChanged({ changed }: TrackingTables, start: number, end: number): void {
  forEachWord(start, end, (word, mask) => {
    changed[word]! |= mask;
  });
}

/** Adds the pages of a bitmap's word, in order. */
function addBits(runs: RunCollector, word: number, bits: number): void {
  if (bits === -1) {
    runs.add(32 * word, 32 * word + 32);
    return;
  }
  for (let rest = bits; rest !== 0; rest &= rest - 1) {
    const page = 32 * word + (31 - Math.clz32(rest & -rest));
    runs.add(page, page + 1);
  }
}
