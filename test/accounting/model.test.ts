/**
 * Random operations against a naive model that records which pages were touched. After each
 * operation the sums by kind and group equal the model's, and the total equals the kernel's.
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
import { coreOf } from "../../src/file/memory-file.ts";
import { plain, settledUsage } from "./support/settle.ts";

interface Page {
  /** "group/kind"; waste has "0/0". */
  owner: string;
  used: boolean;
  committed: boolean;
}

type Operation =
  | {
      op: "allocate";
      pages: number;
      huge: boolean;
      mode: AllocationMode;
      kind: number;
      group: number;
    }
  | { op: "touch" | "decommit" | "decRef"; pick: number; from: number; to: number }
  | { op: "release" }
  | { op: "scanGroup"; group: number };

const unit = fc.double({ min: 0, max: 1, noNaN: true });
const operation: fc.Arbitrary<Operation> = fc.oneof(
  fc.record({
    op: fc.constant("allocate" as const),
    pages: fc.integer({ min: 1, max: 40 }),
    huge: fc.boolean(),
    mode: fc.constantFrom<AllocationMode>(
      "uncommitted",
      "callerIndirectCommit",
      "commit",
      "writePopulate",
    ),
    kind: fc.integer({ min: 1, max: 6 }),
    group: fc.integer({ min: 0, max: 3 }),
  }),
  fc.record({
    op: fc.constantFrom("touch" as const, "decommit" as const, "decRef" as const),
    pick: unit,
    from: unit,
    to: unit,
  }),
  fc.record({ op: fc.constant("release" as const) }),
  fc.record({ op: fc.constant("scanGroup" as const), group: fc.integer({ min: 0, max: 3 }) }),
);

class Model {
  readonly pages = new Map<number, Page>();

  allocated(range: FileRange, request: Operation & { op: "allocate" }): void {
    this.each(range, (page) => {
      // Recycled pages are committed already, because the file zeroes them.
      const recycled = this.pages.has(page);
      const committed = recycled || request.mode === "commit" || request.mode === "writePopulate";
      this.pages.set(page, { owner: `${request.group}/${request.kind}`, used: true, committed });
    });
  }

  each(range: FileRange, visit: (page: number) => void): void {
    for (let page = range.start / PAGE_SIZE; page < range.end / PAGE_SIZE; page++) visit(page);
  }

  change(range: FileRange, change: Partial<Page>): void {
    this.each(range, (page) => Object.assign(this.pages.get(page)!, change));
  }

  release(): void {
    for (const [page, { used }] of this.pages) if (!used) this.pages.delete(page);
  }

  /**
   * Used pages around `pick`, as a range between `from` and `to` of its run; null if nothing is
   * used.
   */
  pick({ pick, from, to }: { pick: number; from: number; to: number }): FileRange | null {
    const used = [...this.pages]
      .flatMap(([page, { used }]) => (used ? [page] : []))
      .sort((a, b) => a - b);
    if (used.length === 0) return null;
    const at = Math.floor(pick * (used.length - 1));
    let first = at;
    while (first > 0 && used[first - 1] === used[first]! - 1) first--;
    let last = at;
    while (last + 1 < used.length && used[last + 1] === used[last]! + 1) last++;
    const length = last - first + 1;
    const start = used[first]! + Math.floor(Math.min(from, to) * (length - 1));
    const end =
      used[first]! + Math.max(Math.ceil(Math.max(from, to) * length), start - used[first]! + 1);
    return new FileRange(start * PAGE_SIZE, end * PAGE_SIZE);
  }

  usage(): { total: number; kinds: Record<string, number>; groups: Record<string, number> } {
    const kinds: Record<string, number> = {};
    const groups: Record<string, number> = {};
    let total = 0;
    for (const { owner, used, committed } of this.pages.values()) {
      if (!committed) continue;
      const counted = used ? owner : "0/0";
      const kind = counted.split("/")[1]!;
      groups[counted] = (groups[counted] ?? 0) + PAGE_SIZE;
      kinds[kind] = (kinds[kind] ?? 0) + PAGE_SIZE;
      total += PAGE_SIZE;
    }
    return { total, kinds, groups };
  }
}

function apply(file: MemoryFile, model: Model, operation: Operation): void {
  if (operation.op === "allocate") {
    const { pages, huge, mode, kind, group } = operation;
    model.allocated(
      file.allocate(huge ? HUGE_PAGE_SIZE : pages * PAGE_SIZE, { huge, mode, kind, group }),
      operation,
    );
  } else if (operation.op === "release") {
    coreOf(file).releaser.releaseAll();
    model.release();
  } else if (operation.op === "scanGroup") {
    file.updateUsage([operation.group]);
  } else {
    const range = model.pick(operation);
    if (range === null) return;
    if (operation.op === "touch") {
      const view = file.view(range);
      for (let offset = 0; offset < view.length; offset += PAGE_SIZE) view[offset] = 1;
      model.change(range, { committed: true });
    } else if (operation.op === "decommit") {
      file.decommit(range);
      model.change(range, { committed: false });
    } else {
      file.decRef(range);
      model.change(range, { used: false });
    }
  }
}

test("usage sums the touched pages by kind and group, after random operations", () => {
  fc.assert(
    fc.property(fc.array(operation, { minLength: 1, maxLength: 40 }), (operations) => {
      using file = MemoryFile.create({ expectHugepages: true });
      const model = new Model();
      for (const operation of operations) {
        apply(file, model, operation);
        const expected = model.usage();
        expect(plain(settledUsage(file))).toEqual(expected);
        expect(file.totalUsageBytes).toBe(expected.total);
      }
    }),
    { numRuns: 60 },
  );
}, 60_000);
