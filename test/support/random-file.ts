/**
 * Random MemoryFiles from a seed, in the states in which programs leave them: small and huge
 * allocations in both directions, kinds, groups, shared and dropped parts, several chunks, stamped,
 * zero and decommitted pages. Each comes with the expected contents of its checkpoint, page by
 * page.
 */
import { CHUNK_SIZE, FileRange, HUGE_PAGE_SIZE, MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { type Expected, joined, type LiveRange, stampPage } from "./expected.ts";

export type Shape = "empty" | "small" | "huge" | "mixed" | "many";

export interface RandomFile {
  readonly file: MemoryFile;
  readonly expected: Expected;
}

/** mulberry32: a float in [0, 1) from 32 bits of state. */
function randomOf(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Page {
  refs: number;
  readonly kind: number;
  readonly group: number;
  readonly huge: boolean;
  index: number;
}

export class RandomFileBuilder {
  private readonly file: MemoryFile;
  private readonly pages = new Map<number, Page>();
  private readonly allocations: FileRange[] = [];
  private readonly random: () => number;
  private readonly shape: Shape;
  private nextIndex = 1;

  constructor(seed: number, shape: Shape) {
    this.random = randomOf(seed);
    this.shape = shape;
    this.file = MemoryFile.create({ name: `random-${seed}`, expectHugepages: true });
  }

  /** Waste is released before this returns. */
  async build(): Promise<RandomFile> {
    const { shape } = this;
    const steps = { empty: 0, small: 60, huge: 40, mixed: 80, many: 1500 }[shape];
    for (let step = 0; step < steps; step++) {
      await this.step();
    }
    await this.file.released();
    return { file: this.file, expected: this.expected() };
  }

  private below(count: number): number {
    return Math.floor(this.random() * count);
  }

  private async step(): Promise<void> {
    const dice = this.random();
    if (this.shape === "mixed" && dice < 0.04) this.allocateLarge();
    else if (this.allocations.length === 0 || dice < 0.4) this.allocate();
    else if (dice < 0.55) this.share();
    else if (dice < 0.75) this.drop();
    else if (dice < 0.95) this.stamp();
    else if (dice < 0.98) this.decommit();
    else await this.file.released();
  }

  /** Starts another chunk, of which only the edges stay in use. */
  private allocateLarge(): void {
    const edge = 8 * PAGE_SIZE;
    const range = this.file.allocate(CHUNK_SIZE / 2 + PAGE_SIZE * this.below(100));
    this.file.decRef(new FileRange(range.start + edge, range.end - edge));
    this.own(new FileRange(range.start, range.start + edge), { kind: 1, group: 0, huge: false });
    this.own(new FileRange(range.end - edge, range.end), { kind: 1, group: 0, huge: false });
  }

  private own(range: FileRange, owner: { kind: number; group: number; huge: boolean }): void {
    for (let at = range.start; at < range.end; at += PAGE_SIZE)
      this.pages.set(at, { ...owner, refs: 1, index: 0 });
    this.allocations.push(range);
  }

  private allocate(): void {
    const { shape } = this;
    const huge = shape === "huge" || (shape === "mixed" && this.random() < 0.5);
    const lengthBytes = huge ? (1 + this.below(4)) * HUGE_PAGE_SIZE : this.smallLength();
    const kind = this.below(6);
    const group = this.random() < 0.1 ? 2 ** 32 - 1 - this.below(2) : this.below(4);
    const direction = this.random() < 0.5 ? "bottomUp" : "topDown";
    const mode = this.random() < 0.8 ? "uncommitted" : "callerIndirectCommit";
    const range = this.file.allocate(lengthBytes, { huge, kind, group, direction, mode });
    this.own(range, { kind, group, huge });
  }

  private smallLength(): number {
    return PAGE_SIZE * (1 + this.below(this.random() < 0.2 ? 600 : 20));
  }

  /** Some pages of an allocation that all have references, or null. */
  private pick(): FileRange | null {
    const range = this.allocations[this.below(this.allocations.length)]!;
    const pages = range.length / PAGE_SIZE;
    const whole = this.random() < 0.4;
    const first = whole ? 0 : this.below(pages);
    const count = whole ? pages : 1 + this.below(pages - first);
    const start = range.start + first * PAGE_SIZE;
    const end = start + count * PAGE_SIZE;
    for (let at = start; at < end; at += PAGE_SIZE) if (!this.pages.has(at)) return null;
    return new FileRange(start, end);
  }

  private share(): void {
    const range = this.pick();
    if (range === null) return;
    const times = 1 + this.below(3);
    for (let i = 0; i < times; i++) this.file.incRef(range);
    for (let at = range.start; at < range.end; at += PAGE_SIZE) this.pages.get(at)!.refs += times;
  }

  private drop(): void {
    const range = this.pick();
    if (range === null) return;
    this.file.decRef(range);
    for (let at = range.start; at < range.end; at += PAGE_SIZE) {
      if (--this.pages.get(at)!.refs === 0) this.pages.delete(at);
    }
  }

  /** Stamps some pages of a range, and writes only zeros to others. */
  private stamp(): void {
    const range = this.pick();
    if (range === null) return;
    const every = 1 + this.below(4);
    const most = Math.min(range.end, range.start + 200 * PAGE_SIZE);
    for (let at = range.start; at < most; at += every * PAGE_SIZE) {
      const view = this.file.view(new FileRange(at, at + PAGE_SIZE));
      const page = this.pages.get(at)!;
      if (this.random() < 0.2) {
        view.fill(0);
        page.index = 0;
      } else {
        page.index = this.nextIndex++;
        stampPage(view, page.index);
      }
    }
  }

  private decommit(): void {
    const range = this.pick();
    if (range === null) return;
    this.file.decommit(range);
    for (let at = range.start; at < range.end; at += PAGE_SIZE) this.pages.get(at)!.index = 0;
  }

  private expected(): Expected {
    const live: LiveRange[] = [];
    const filled: { offset: number; index: number }[] = [];
    for (const [start, { index, ...owner }] of [...this.pages].sort(([a], [b]) => a - b)) {
      live.push({ start, end: start + PAGE_SIZE, ...owner });
      if (index > 0) filled.push({ offset: start, index });
    }
    return { live: joined(live), filled, totalSize: this.file.totalSizeBytes };
  }
}

export function randomFile(seed: number, shape: Shape): Promise<RandomFile> {
  return new RandomFileBuilder(seed, shape).build();
}
