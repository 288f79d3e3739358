/**
 * The tracker that asks the kernel (ffi/userfaultfd.ts). A take reports and protects a page in one
 * step, so no write falls in between.
 *
 * Huge pages: the kernel reports one as a whole, 512 pages for each write. A unit that two takes in
 * a row reported as a whole is split: protected page by page, which maps it in small pages, so the
 * next take reports single pages. A split unit that no take has reported for IDLE_TAKES is joined:
 * unregistered, collapsed, registered again, because MADV_COLLAPSE refuses registered memory. In
 * between it is not protected, so the next take reports it.
 *
 * The file grows, and a mapping may be replaced by another (as in a restore that maps its pages).
 * The next take registers all memory that is mapped and not registered, and reports all of it.
 */
import {
  isMappedHuge,
  MADV_COLLAPSE,
  protectWrites,
  registerWrites,
  SyscallError,
  scanWritten,
  seekData,
  seekHole,
  tryAdvise,
  unregisterWrites,
} from "../../ffi/index.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE, PAGES_PER_HUGE_PAGE } from "../pages/units.ts";
import { type PageRuns, RunCollector, uniteRuns } from "./page-runs.ts";
import { atOnce, type Slices } from "../threads/slices.ts";
import { type TrackingTables, TrackingCounter, TrackingWord } from "./tables.ts";
import type { ChangeTracker, TakeOptions } from "./tracker.ts";

/** `heat` of a unit that is mapped in small pages because it was split. */
const SPLIT = 255;
const HOT_TAKES = 2;
/**
 * A save makes about four takes, so this is some saves. Below 256, because `lastTake` is a byte.
 */
const IDLE_TAKES = 24;
/** A slice of a scan: protecting this many pages for the first time takes about 3 ms. */
const SCAN_PAGES = 2 ** 16;

/** A file's memory, as the trackers see it. */
export interface TrackedMemory {
  /** Finds pages with memory if not all memory is in the file; otherwise undefined. */
  readonly findData?: (page: number, end: number) => { start: number; end: number };
  readonly fd: number;
  readonly base: number;
  /** The file's size at present. */
  sizePages(): number;
}

export class WrittenPages implements ChangeTracker {
  readonly detection = "userfaultfd";
  private readonly tables: TrackingTables;
  private readonly memory: TrackedMemory;
  private readonly userfaultfd: number;
  private readonly pagemap: number;
  /** Reported as a whole by this take and the one before. */
  private hotUnits: number[] = [];

  constructor(tables: TrackingTables, memory: TrackedMemory) {
    this.tables = tables;
    this.memory = memory;
    this.userfaultfd = tables.words[TrackingWord.Userfaultfd]!;
    this.pagemap = tables.words[TrackingWord.Pagemap]!;
  }

  take(used: PageRuns, options?: TakeOptions): RunCollector {
    return atOnce(this.takeInSlices(used, options));
  }

  *takeInSlices(used: PageRuns, { isHurried = false }: TakeOptions = {}): Slices<RunCollector> {
    const { words } = this.tables;
    const sizePages = this.memory.sizePages();
    this.tables.cover(sizePages);
    const registered = words[TrackingWord.RegisteredPages]!;
    if (sizePages > registered) this.register(registered, sizePages);
    this.hotUnits = [];
    const written = yield* this.scan(used, sizePages);
    // Newly registered memory counts as written, which says nothing of its writers.
    if (sizePages > registered)
      this.tables.heat.fill(0, Math.floor(registered / PAGES_PER_HUGE_PAGE));
    if (!isHurried) for (const unit of this.hotUnits) this.split(unit);
    return written;
  }

  private register(start: number, end: number): void {
    const { base } = this.memory;
    registerWrites(this.userfaultfd, base + start * PAGE_SIZE, (end - start) * PAGE_SIZE);
    this.tables.words[TrackingWord.RegisteredPages] = end;
  }

  private *scan(used: PageRuns, sizePages: number): Slices<RunCollector> {
    const parts: RunCollector[] = [];
    try {
      yield* this.scanInto(parts, used);
    } catch (error) {
      if (!(error instanceof SyscallError) || error.code !== "EPERM") throw error;
      // Another mapping replaced a registered part. Reported pages are protected already.
      this.register(0, sizePages);
      yield* this.scanInto(parts, used);
    }
    return parts.reduce((all, part) => uniteRuns(all.runs, part.runs), new RunCollector());
  }

  /**
   * Adds written pages to parts, each of which is in order. While other threads write, the kernel
   * may report an address again after it was reported and protected: it was written again.
   */
  private *scanInto(parts: RunCollector[], used: PageRuns): Slices<void> {
    const { base } = this.memory;
    let end = Number.POSITIVE_INFINITY;
    const visit = (from: number, to: number) => {
      const first = (from - base) / PAGE_SIZE;
      const last = (to - base) / PAGE_SIZE;
      this.note(first, last);
      if (first < end) parts.push(new RunCollector());
      parts.at(-1)!.add(first, last);
      end = last;
    };
    const { start, length } = unitsOf(used).runs;
    for (let i = 0; i < start.length; i++) {
      const last = start[i]! + length[i]!;
      for (let page = start[i]!; page < last; page += SCAN_PAGES) {
        const pages = Math.min(SCAN_PAGES, last - page);
        scanWritten(
          this.pagemap,
          base + page * PAGE_SIZE,
          base + (page + pages) * PAGE_SIZE,
          visit,
        );
        yield;
      }
    }
  }

  /** Updates `heat` and `lastTake` of the units that pages [start, end) touch. */
  private note(start: number, end: number): void {
    const { heat, lastTake, words } = this.tables;
    const take = words[TrackingWord.Takes]! & 0xff;
    const first = Math.floor(start / PAGES_PER_HUGE_PAGE);
    const last = Math.floor((end - 1) / PAGES_PER_HUGE_PAGE);
    for (let unit = first; unit <= last; unit++) {
      const isWhole =
        unit * PAGES_PER_HUGE_PAGE >= start && (unit + 1) * PAGES_PER_HUGE_PAGE <= end;
      if (heat[unit] !== SPLIT) {
        const isNext = lastTake[unit] === ((take - 1) & 0xff);
        heat[unit] = isWhole ? Math.min((isNext ? heat[unit]! : 0) + 1, SPLIT - 1) : 0;
        if (heat[unit]! >= HOT_TAKES) this.hotUnits.push(unit);
      }
      lastTake[unit] = take;
    }
  }

  /**
   * Splits a unit whose pages this take reported. They are copied afterwards, so the copy has
   * writes that come before they are protected.
   */
  private split(unit: number): void {
    const { heat, counters } = this.tables;
    const address = this.memory.base + unit * HUGE_PAGE_SIZE;
    heat[unit] = 0;
    if (!isMappedHuge(this.pagemap, address)) return;
    heat[unit] = SPLIT;
    protectWrites(this.userfaultfd, address, HUGE_PAGE_SIZE);
    counters[TrackingCounter.SplitUnits]!++;
  }

  /** Work for the time between saves: joins huge pages that were not written for long. */
  maintain(): void {
    const { heat, lastTake, words } = this.tables;
    const take = words[TrackingWord.Takes]! & 0xff;
    for (let unit = heat.indexOf(SPLIT); unit >= 0; unit = heat.indexOf(SPLIT, unit + 1)) {
      if (((take - lastTake[unit]!) & 0xff) >= IDLE_TAKES) this.join(unit);
    }
  }

  /** Makes a unit a huge page again, if all of it has memory, because joining fills holes. */
  private join(unit: number): void {
    const { fd, base } = this.memory;
    const start = unit * HUGE_PAGE_SIZE;
    this.tables.heat[unit] = 0;
    if (seekData(fd, start) !== start || seekHole(fd, start) < start + HUGE_PAGE_SIZE) return;
    const { userfaultfd } = this;
    unregisterWrites(userfaultfd, base + start, HUGE_PAGE_SIZE);
    const error = tryAdvise(base + start, HUGE_PAGE_SIZE, MADV_COLLAPSE);
    registerWrites(userfaultfd, base + start, HUGE_PAGE_SIZE);
    if (error === 0) this.tables.counters[TrackingCounter.JoinedUnits]!++;
  }
}

/**
 * Whole units with used pages. Pages without references are left out because to protect what has no
 * memory takes 7 ms a GiB; units are whole because a scan of a part would split their huge pages.
 */
function unitsOf(used: PageRuns): RunCollector {
  const units = new RunCollector();
  let end = 0;
  for (let i = 0; i < used.start.length; i++) {
    const first = used.start[i]! - (used.start[i]! % PAGES_PER_HUGE_PAGE);
    const last = used.start[i]! + used.length[i]!;
    const start = Math.max(first, end);
    end = Math.max(end, Math.ceil(last / PAGES_PER_HUGE_PAGE) * PAGES_PER_HUGE_PAGE);
    if (start < end) units.add(start, end);
  }
  return units;
}
