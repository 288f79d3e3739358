/**
 * MemoryFile against a naive model with one entry for each page (test/support/naive-file.ts). After
 * every command the state of every page and the contents of every live allocation are compared.
 */
import { expect, test } from "bun:test";
import fc from "fast-check";
import {
  type AllocationMode,
  FileRange,
  HUGE_PAGE_SIZE,
  MemoryFile,
  PAGE_SIZE,
} from "../../src/index.ts";
import { NaiveFile } from "../support/naive-file.ts";

interface Live {
  readonly start: number;
  readonly end: number;
}

interface Model {
  readonly naive: NaiveFile;
  /** Allocations, and the stamp of each page: 0 for a page that must read as zero. */
  readonly live: Live[];
  readonly stamps: Map<number, number>;
}

let nextStamp = 1;

function rangeOf(live: Live): FileRange {
  return new FileRange(live.start * PAGE_SIZE, live.end * PAGE_SIZE);
}

function compare(model: Model, file: MemoryFile): void {
  // Sub-released runs that count and those that do not are equal in both texts, but separate runs
  // in the file.
  expect(joined(file.dump())).toBe(joined(model.naive.dump()));
  expect(file.allocatedBytes).toBe(model.naive.usedPages * PAGE_SIZE);
  for (const live of model.live) {
    for (
      let page = live.start;
      page < live.end;
      page += Math.max(1, Math.floor((live.end - live.start) / 16))
    ) {
      if (!model.naive.isReferenced(page, page + 1)) continue;
      const word = file.view(rangeOf({ start: page, end: page + 1 }), Float64Array)[7];
      expect(word).toBe(model.stamps.get(page) ?? 0);
    }
  }
}

function joined(text: string): string {
  return text.replace(/, (\d+)\) huge sub-released\n\[\1(?=, \d+\) huge sub-released)/g, "");
}

abstract class Command implements fc.AsyncCommand<Model, MemoryFile> {
  check(): boolean {
    return true;
  }
  async run(model: Model, file: MemoryFile): Promise<void> {
    await this.apply(model, file);
    compare(model, file);
  }
  abstract apply(model: Model, file: MemoryFile): void | Promise<void>;
  abstract toString(): string;
}

class Allocate extends Command {
  constructor(
    readonly size: number,
    readonly huge: boolean,
    readonly topDown: boolean,
    readonly mode: AllocationMode,
    readonly owner: number,
  ) {
    super();
  }
  apply(model: Model, file: MemoryFile): void {
    const pages = this.huge ? (1 + (this.size % 4)) * (HUGE_PAGE_SIZE / PAGE_SIZE) : this.size;
    const { huge, topDown, mode } = this;
    const kind = this.owner % 3;
    const group = this.owner % 2;
    const start = model.naive.allocate({
      pages,
      huge,
      topDown,
      willCommit: mode !== "uncommitted",
      kind,
      group,
    });
    const direction = topDown ? "topDown" : "bottomUp";
    const range = file.allocate(pages * PAGE_SIZE, { huge, direction, mode, kind, group });
    expect(`${range}`).toBe(`${new FileRange(start * PAGE_SIZE, (start + pages) * PAGE_SIZE)}`);
    for (let page = start; page < start + pages; page++) model.stamps.delete(page);
    model.live.push({ start, end: start + pages });
  }
  toString(): string {
    return (
      `allocate(${this.size}, ${this.huge ? "huge" : "small"}, ` +
      `${this.topDown ? "down" : "up"}, ${this.mode}, ${this.owner})`
    );
  }
}

/** A command on a part of some live allocation. The part may be referenced or not. */
abstract class RangeCommand extends Command {
  constructor(
    readonly pick: number,
    readonly from: number,
    readonly count: number,
  ) {
    super();
  }
  apply(model: Model, file: MemoryFile): void {
    // Mostly the last few, because recently dropped pages are the likely failures.
    const live = model.live.at(-1 - (this.pick % Math.min(4, Math.max(1, model.live.length))));
    if (live === undefined) return;
    // One in three is the whole allocation.
    const start = live.start + (this.pick % 3 === 0 ? 0 : this.from % (live.end - live.start));
    const end = this.pick % 3 === 0 ? live.end : Math.min(live.end, start + this.count);
    const range = rangeOf({ start, end });
    if (model.naive.isReferenced(start, end)) this.onRange(model, file, start, end, range);
    else expect(() => this.onRange(model, file, start, end, range)).toThrow("to have a reference");
  }
  abstract onRange(
    model: Model,
    file: MemoryFile,
    start: number,
    end: number,
    range: FileRange,
  ): void;
  toString(): string {
    return `${this.constructor.name}(${this.pick}, ${this.from}, ${this.count})`;
  }
}

class IncRef extends RangeCommand {
  onRange(model: Model, file: MemoryFile, start: number, end: number, range: FileRange): void {
    file.incRef(range);
    model.naive.incRef(start, end);
  }
}

class DecRef extends RangeCommand {
  onRange(model: Model, file: MemoryFile, start: number, end: number, range: FileRange): void {
    file.decRef(range);
    model.naive.decRef(start, end);
  }
}

class Stamp extends RangeCommand {
  onRange(model: Model, file: MemoryFile, start: number, end: number, range: FileRange): void {
    const words = file.view(range, Float64Array);
    for (let page = start; page < end; page++) {
      const stamp = nextStamp++;
      words[((page - start) * PAGE_SIZE) / 8 + 7] = stamp;
      model.stamps.set(page, stamp);
    }
  }
}

class Decommit extends RangeCommand {
  onRange(model: Model, file: MemoryFile, start: number, end: number, range: FileRange): void {
    file.decommit(range);
    for (let page = start; page < end; page++) model.stamps.delete(page);
  }
}

class Shared extends RangeCommand {
  onRange(model: Model, file: MemoryFile, start: number, end: number, range: FileRange): void {
    const shared = model.naive.firstShared(start, end);
    expect(`${file.firstSharedRange(range)}`).toBe(`${shared === null ? null : rangeOf(shared)}`);
    expect(file.hasUniqueRef(range)).toBe(shared === null);
  }
}

class Settle extends Command {
  async apply(model: Model, file: MemoryFile): Promise<void> {
    await file.released();
    model.naive.settle();
  }
  toString(): string {
    return "settle()";
  }
}

const range = [
  fc.nat({ max: 11 }),
  fc.nat({ max: 2047 }),
  fc.integer({ min: 1, max: 1200 }),
] as const;
const modes = fc.constantFrom<AllocationMode>(
  "uncommitted",
  "uncommitted",
  "callerIndirectCommit",
  "commit",
  "writePopulate",
);
const commands = [
  fc
    .tuple(fc.integer({ min: 1, max: 200 }), fc.boolean(), fc.boolean(), modes, fc.nat({ max: 5 }))
    .map((a) => new Allocate(...a)),
  fc.tuple(...range).map((a) => new IncRef(...a)),
  fc.tuple(...range).map((a) => new DecRef(...a)),
  fc.tuple(...range).map((a) => new DecRef(...a)),
  fc.tuple(...range).map((a) => new Stamp(...a)),
  fc.tuple(...range).map((a) => new Decommit(...a)),
  fc.tuple(...range).map((a) => new Shared(...a)),
  fc.constant(new Settle()),
];

test("MemoryFile has the model's pages after every command", async () => {
  await fc.assert(
    fc.asyncProperty(fc.commands(commands, { maxCommands: 150, size: "max" }), async (run) => {
      using file = MemoryFile.create({ expectHugepages: true });
      const model: Model = { naive: new NaiveFile(), live: [], stamps: new Map() };
      await fc.asyncModelRun(() => ({ model, real: file }), run);
    }),
    { numRuns: 10 },
  );
}, 120_000);
