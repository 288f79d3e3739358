/**
 * A program that does with a MemoryFile all that a program can, at random, in turns of its event
 * loop: what a consistent save is tried on. A copy of everything at an instant, and a restored
 * file, are compared page by page.
 */
import { MADV_COLLAPSE, MADV_POPULATE_WRITE, tryAdvise } from "../../../ffi/index.ts";
import { USED } from "../../../src/allocator/states.ts";
import { coreOf } from "../../../src/file/memory-file.ts";
import {
  type AllocationMode,
  FileRange,
  HUGE_PAGE_SIZE,
  type MemoryFile,
  PAGE_SIZE,
} from "../../../src/index.ts";
import { collectRuns } from "../../../src/save/collect.ts";

const MODES: readonly AllocationMode[] = ["uncommitted", "commit", "writePopulate"];
const BYTES_MAX = 24 * 2 ** 20;

/** Used runs: first page, pages, references, kind and group of each; and each page's contents. */
export interface Copy {
  readonly runs: readonly (readonly number[])[];
  readonly pages: ReadonlyMap<number, Buffer>;
}

/** A copy of everything at this instant. */
export function copyAll(file: MemoryFile): Copy {
  const { runs } = collectRuns(coreOf(file).allocator);
  const rows: number[][] = [];
  const pages = new Map<number, Buffer>();
  for (let i = 0; i < runs.start.length; i++) {
    if (runs.state[i] !== USED) continue;
    const start = runs.start[i]!;
    const length = runs.length[i]!;
    const same = rows.at(-1);
    const owner = [runs.refs[i]!, runs.kind[i]!, runs.group[i]!];
    // Two runs that are alike may be one run elsewhere.
    if (same !== undefined && same[0]! + same[1]! === start && equal(same.slice(2), owner))
      same[1]! += length;
    else rows.push([start, length, ...owner]);
    const range = new FileRange(start * PAGE_SIZE, (start + length) * PAGE_SIZE);
    let page = start;
    for (const view of file.views(range))
      for (let at = 0; at < view.length; at += PAGE_SIZE)
        pages.set(page++, Buffer.from(view.subarray(at, at + PAGE_SIZE)));
  }
  return { runs: rows, pages };
}

const equal = (a: readonly number[], b: readonly number[]): boolean =>
  a.every((value, i) => value === b[i]);

/** What differs between two copies, for a person; null if nothing does. */
export function difference(expected: Copy, actual: Copy): string | null {
  const [wanted, got] = [JSON.stringify(expected.runs), JSON.stringify(actual.runs)];
  if (wanted !== got) return `Expected runs ${wanted}, got ${got}`;
  for (const [page, bytes] of expected.pages) {
    const other = actual.pages.get(page)!;
    if (bytes.equals(other)) continue;
    const at = bytes.findIndex((byte, i) => byte !== other[i]);
    return `Expected byte ${at} of page ${page} to be ${bytes[at]}, got ${other[at]}`;
  }
  return null;
}

export class RandomProgram {
  readonly file: MemoryFile;
  private readonly ranges: FileRange[] = [];
  private state: number;
  private isOver = false;
  private turns: Promise<void> | undefined;

  /** `file` may hold ranges of an earlier program, that of `copyAll`. */
  constructor(file: MemoryFile, seed: number, runs: Copy["runs"] = []) {
    this.file = file;
    this.state = seed >>> 0 || 1;
    for (const [start, length, refs] of runs)
      for (let i = 0; i < refs!; i++)
        this.ranges.push(new FileRange(start! * PAGE_SIZE, (start! + length!) * PAGE_SIZE));
  }

  /** Runs turns until `stop`. */
  start(): void {
    const turn = async () => {
      while (!this.isOver) {
        for (let i = this.below(12); i >= 0; i--) this.step();
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    this.turns = turn();
  }

  async stop(): Promise<void> {
    this.isOver = true;
    await this.turns;
  }

  below(n: number): number {
    this.state ^= this.state << 13;
    this.state ^= this.state >>> 17;
    this.state ^= this.state << 5;
    this.state >>>= 0;
    return this.state % n;
  }

  step(): void {
    const kind = this.below(20);
    if (kind < 3 || this.ranges.length === 0) this.allocate();
    else if (kind < 13) this.write();
    else if (kind < 15) this.drop();
    else if (kind < 16) this.share();
    else if (kind < 17) this.decommit();
    else if (kind < 18) this.markEvictable();
    else if (kind < 19) this.file.startEvictions();
    else this.collapse();
  }

  private allocate(): void {
    const huge = this.below(4) === 0;
    const length = huge
      ? HUGE_PAGE_SIZE
      : (1 + this.below(this.below(8) === 0 ? 600 : 20)) * PAGE_SIZE;
    if (this.file.allocatedBytes + length > BYTES_MAX) {
      this.drop();
      return;
    }
    const mode = MODES[this.below(MODES.length)]!;
    const direction = this.below(2) === 0 ? "topDown" : "bottomUp";
    const options = { huge, mode, direction, kind: this.below(3), group: this.below(3) } as const;
    this.ranges.push(this.file.allocate(length, options));
  }

  /** A part of a range that the program holds: page-aligned, not empty. */
  private part(): FileRange {
    const { start, end } = this.ranges[this.below(this.ranges.length)]!;
    const pages = (end - start) / PAGE_SIZE;
    const first = this.below(pages);
    const last = Math.min(pages, first + 1 + this.below(8));
    return new FileRange(start + first * PAGE_SIZE, start + last * PAGE_SIZE);
  }

  private write(): void {
    const range = this.part();
    if (!this.file.isLoaded(range)) return;
    const view = this.file.view(range);
    if (this.below(6) === 0) view.fill(this.below(3));
    else view[this.below(view.length)] = this.below(256);
  }

  private drop(): void {
    const [range] = this.ranges.splice(this.below(this.ranges.length), 1);
    if (range !== undefined) this.file.decRef(range);
  }

  private share(): void {
    const range = this.part();
    this.file.incRef(range);
    this.ranges.push(range);
  }

  private decommit(): void {
    this.file.decommit(this.part());
  }

  /** Evicted ranges are dropped, if the program still has them. */
  private markEvictable(): void {
    const range = this.ranges[this.below(this.ranges.length)]!;
    const user = {
      evict: () => {
        const at = this.ranges.indexOf(range);
        if (at < 0) return;
        this.ranges.splice(at, 1);
        this.file.decRef(range);
      },
    };
    this.file.markEvictable(user, { start: range.start, end: range.end });
  }

  /** Makes a huge page of a unit, as a load does. */
  private collapse(): void {
    const { start, length } = this.ranges[this.below(this.ranges.length)]!;
    if (this.file.isLoading || length < HUGE_PAGE_SIZE || start % HUGE_PAGE_SIZE !== 0) return;
    const address = coreOf(this.file).mapping.base + start;
    tryAdvise(address, PAGE_SIZE, MADV_POPULATE_WRITE);
    tryAdvise(address, HUGE_PAGE_SIZE, MADV_COLLAPSE);
  }
}
