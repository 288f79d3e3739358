/**
 * The tracker that needs nothing from the kernel: it keeps a 64-bit hash of each page (xxHash3,
 * with a random seed) and compares. A take reads all used memory, about 10 GiB/s.
 *
 * A hash of 0 is a page of zeros, or one that has no memory: looking at one of those would give it
 * some, so holes are skipped by SEEK_DATA.
 */
import { bufferAt, detach, isZero, seekData, seekHole } from "../../ffi/index.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import type { PageRuns } from "./page-runs.ts";
import { type TrackingTables, TrackingWord } from "./tables.ts";
import type { ChangeTracker, VisitPages } from "./tracker.ts";
import type { TrackedMemory } from "./written-pages.ts";

const ZERO = 0n;
/** No page's hash: of a page that was not used at the last take. */
const UNKNOWN = 2n ** 64n - 1n;
/** A stretch of memory that one buffer covers: the collector counts a buffer's bytes as garbage. */
const WINDOW_PAGES = 16_384;

export class PageHashes implements ChangeTracker {
  readonly detection = "hashes";
  private readonly tables: TrackingTables;
  private readonly memory: TrackedMemory;
  private readonly seed: bigint;

  constructor(tables: TrackingTables, memory: TrackedMemory) {
    this.tables = tables;
    this.memory = memory;
    const { words } = tables;
    const low = BigInt(words[TrackingWord.SeedLow]! >>> 0);
    this.seed = (BigInt(words[TrackingWord.SeedHigh]! >>> 0) << 32n) | low;
  }

  take(used: PageRuns, visit: VisitPages): void {
    this.tables.cover(this.memory.sizePages());
    let end = 0;
    for (let i = 0; i < used.start.length; i++) {
      const start = used.start[i]!;
      // A page that is used again must not pass for unchanged: the base no longer has it.
      this.tables.hashes.fill(UNKNOWN, end, start);
      end = start + used.length[i]!;
      this.compareRun(start, end, visit);
    }
    this.tables.hashes.fill(UNKNOWN, end);
  }

  private compareRun(start: number, end: number, visit: VisitPages): void {
    const { fd } = this.memory;
    for (let page = start; page < end; ) {
      const data = seekData(fd, page * PAGE_SIZE);
      const from = data < 0 ? end : Math.min(end, Math.floor(data / PAGE_SIZE));
      if (from > page) this.compareHole(page, from, visit);
      if (from >= end) return;
      const hole = Math.min(end, Math.ceil(seekHole(fd, from * PAGE_SIZE) / PAGE_SIZE));
      this.compareData(from, hole, visit);
      page = Math.max(hole, from);
      if (hole === from) this.compareHole(from, ++page, visit);
    }
  }

  /** Pages without memory: those differ that had something. */
  private compareHole(start: number, end: number, visit: VisitPages): void {
    const { hashes } = this.tables;
    for (let page = start; page < end; page++) {
      if (hashes[page] === ZERO) continue;
      hashes[page] = ZERO;
      visit(page, page + 1);
    }
  }

  private compareData(start: number, end: number, visit: VisitPages): void {
    for (let from = start; from < end; from += WINDOW_PAGES)
      this.compareWindow(from, Math.min(end, from + WINDOW_PAGES), visit);
  }

  private compareWindow(start: number, end: number, visit: VisitPages): void {
    const { base } = this.memory;
    const { hashes } = this.tables;
    const buffer = bufferAt(base + start * PAGE_SIZE, (end - start) * PAGE_SIZE);
    for (let page = start; page < end; page++) {
      const bytes = new Uint8Array(buffer, (page - start) * PAGE_SIZE, PAGE_SIZE);
      const hash = this.hashOf(bytes, base + page * PAGE_SIZE);
      if (hashes[page] === hash) continue;
      hashes[page] = hash;
      visit(page, page + 1);
    }
    detach(buffer);
  }

  private hashOf(bytes: Uint8Array, address: number): bigint {
    if (bytes[0] === 0 && isZero(address, PAGE_SIZE)) return ZERO;
    const hash = Bun.hash.xxHash3(bytes, this.seed);
    return hash === ZERO || hash === UNKNOWN ? 1n : hash;
  }

  maintain(): void {}
}
