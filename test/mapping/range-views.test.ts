/** What a FileRange remembers of its view: always the view that a look-up would give, and never seen from outside. */
import { expect, test } from "bun:test";
import { DestroyedError, FileRange, MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { Views } from "../../src/mapping/views.ts";
import { coreOf } from "../../src/memory-file.ts";
import { Word } from "../../src/shared/control.ts";

const writable = (range: FileRange) => range as { start: number; end: number };

test("a range that was given by allocate, another FileRange and a plain object of the same bytes have one view", () => {
  using file = MemoryFile.create();
  const range = file.allocate(2 * PAGE_SIZE);
  const view = file.view(range);
  for (let i = 0; i < 3; i++) {
    expect(file.view(range)).toBe(view);
    expect(file.view(new FileRange(range.start, range.end))).toBe(view);
    expect(file.view({ start: range.start, end: range.end })).toBe(view);
  }
});

test("as another type it is another view of the same memory", () => {
  using file = MemoryFile.create();
  const range = file.allocate(PAGE_SIZE);
  for (let round = 0; round < 3; round++) {
    const floats = file.view(range, Float32Array);
    expect(file.view(range, Float32Array)).toBe(floats);
    floats[0] = round;
    const data = file.view(range, DataView);
    expect(file.view(range, DataView)).toBe(data);
    expect(data.getFloat32(0, true)).toBe(round);
    expect(new Float32Array(file.view(range).buffer)[0]).toBe(round);
    class Own extends Uint8Array<ArrayBuffer> {}
    expect(file.view(range, Own)).toBeInstanceOf(Own);
  }
});

test("a range whose bounds a program has changed is looked up anew", () => {
  using file = MemoryFile.create();
  const range = file.allocate(4 * PAGE_SIZE);
  const { start, end } = range;
  new Int32Array(file.view(range).buffer).forEach((_, i, words) => {
    words[i] = Math.floor((4 * i) / PAGE_SIZE);
  });
  writable(range).end = start + PAGE_SIZE;
  expect(file.view(range).byteLength).toBe(PAGE_SIZE);
  for (let page = 1; page < 4; page++) {
    writable(range).start = start + page * PAGE_SIZE;
    writable(range).end = start + (page + 1) * PAGE_SIZE;
    const view = file.view(range);
    expect([view.byteLength, view[0]]).toEqual([PAGE_SIZE, page]);
  }
  for (const bad of [start + 4 * PAGE_SIZE, start + 1, Number.NaN, -PAGE_SIZE]) {
    writable(range).start = bad;
    expect(() => file.view(range)).toThrow(RangeError);
  }
  writable(range).start = writable(range).end = end;
  expect(() => file.view(range)).toThrow(RangeError);
});

/** Has every range looked up anew, and remember what is found. */
function discardSome(file: MemoryFile): void {
  file.decRef(file.allocate(PAGE_SIZE));
}

/** A range whose bounds are asked of `start` and `end` each time. */
function rangeAsking(start: () => unknown, end: () => unknown): FileRange {
  const range = new FileRange(0, 0);
  Object.defineProperty(range, "start", { get: start });
  Object.defineProperty(range, "end", { get: end });
  return range;
}

test("bounds that answer otherwise each time they are asked for show no pages that nobody has a reference to, nor others' for good", () => {
  using file = MemoryFile.create();
  const [one, two, three] = Array.from({ length: 3 }, (_, i) => {
    const range = file.allocate(PAGE_SIZE);
    file.view(range)[0] = i + 1;
    return range;
  }) as [FileRange, FileRange, FileRange];
  // What is answered next: the first ones once, the last for ever.
  let starts = [0];
  let ends = [0];
  const next = (answers: number[]) => (answers.length > 1 ? answers.shift()! : answers[0]!);
  const range = rangeAsking(
    () => next(starts),
    () => next(ends),
  );
  const viewAs = (as: number[], to: number[]) => {
    starts = as;
    ends = to;
    return file.view(range);
  };
  /** Remembered as that. */
  const remember = ({ start, end }: FileRange) => {
    for (let i = 0; i < 2; i++) {
      discardSome(file);
      expect(viewAs([start], [end]).byteLength).toBe(PAGE_SIZE);
    }
  };
  // Checked as one and then called two: it is not two's for that.
  discardSome(file);
  viewAs([one.start, two.start], [one.end, two.end]);
  expect(viewAs([two.start], [two.end])[0]).toBe(2);
  // Remembered as one, and checked as two.
  remember(one);
  discardSome(file);
  expect(viewAs([one.start, two.start], [one.end, two.end])[0]).toBe(2);
  remember(one);
  file.decRef(one);
  expect(viewAs([one.start, two.start], [one.end, two.end])[0]).toBe(2);
  // Remembered as shorter than it is when it is checked, and as longer.
  remember(two);
  discardSome(file);
  expect(viewAs([two.start], [two.end, three.end]).byteLength).toBe(2 * PAGE_SIZE);
  file.decRef(three);
  expect(() => viewAs([two.start], [two.end, three.end])).toThrow("has none");
  expect(viewAs([two.start], [three.end, two.end]).byteLength).toBe(PAGE_SIZE);
});

test("bounds that ask for another file's view of the same range meanwhile leave each file its own", () => {
  using one = MemoryFile.create();
  using two = MemoryFile.create();
  const [first, other] = [one.allocate(PAGE_SIZE), two.allocate(PAGE_SIZE)];
  expect(other).toEqual(first);
  let calls = 0;
  let asksTwo = false;
  const range = rangeAsking(
    () => {
      if (asksTwo && ++calls === 2) {
        asksTwo = false;
        two.view(range);
      }
      return first.start;
    },
    () => first.end,
  );
  expect(one.view(range).byteLength).toBe(PAGE_SIZE);
  discardSome(one);
  asksTwo = true;
  expect(one.view(range)).toBe(one.view(first));
  // As often as one's, so that what is known of one's pages would do for two's.
  two.decRef(other);
  expect(() => two.view(range)).toThrow("has none");
});

test("bounds that drop the reference when they are asked for are refused", () => {
  using file = MemoryFile.create();
  const { start, end } = file.allocate(PAGE_SIZE);
  let drops = false;
  const dropping = rangeAsking(
    () => {
      if (drops) file.decRef({ start, end });
      drops = false;
      return start;
    },
    () => end,
  );
  expect(file.view(dropping).byteLength).toBe(PAGE_SIZE);
  drops = true;
  expect(() => file.view(dropping)).toThrow("has none");
});

test("bounds that only look like the numbers of before are refused", () => {
  using file = MemoryFile.create();
  const range = file.allocate(PAGE_SIZE);
  file.view(range);
  const { start, end } = range;
  for (const bad of [`${end}`, { valueOf: () => end }, BigInt(end)]) {
    writable(range).end = bad as never;
    expect(() => file.view(range)).toThrow(TypeError);
    writable(range).end = end;
    writable(range).start = (typeof bad === "string" ? `${start}` : bad) as never;
    expect(() => file.view(range)).toThrow(TypeError);
    writable(range).start = start;
  }
  expect(file.view(range).byteLength).toBe(PAGE_SIZE);
});

test("a frozen range is a range", () => {
  using file = MemoryFile.create();
  const range = Object.freeze(file.allocate(PAGE_SIZE));
  const view = file.view(range);
  expect(file.view(range)).toBe(view);
  discardSome(file);
  expect(file.view(range)).toBe(view);
});

test("what a program has made of a FileRange, and all that it holds, is not kept for its view", async () => {
  using file = MemoryFile.create();
  class Job extends FileRange {
    readonly payload = new Uint8Array(8);
  }
  const jobs = Array.from({ length: 100 }, () => {
    const { start, end } = file.allocate(PAGE_SIZE);
    const job = new Job(start, end);
    const view = file.view(job);
    expect(file.view(job)).toBe(view);
    return new WeakRef(job);
  });
  await Bun.sleep(1);
  Bun.gc(true);
  // The collector may take a few words of the stack for references.
  expect(jobs.filter((job) => job.deref() !== undefined).length).toBeLessThan(20);
});

test("the same range in two files is each file's own", () => {
  using one = MemoryFile.create();
  using two = MemoryFile.create();
  const range = one.allocate(PAGE_SIZE);
  expect(two.allocate(PAGE_SIZE)).toEqual(range);
  one.view(range)[0] = 1;
  two.view(range)[0] = 2;
  for (let round = 0; round < 3; round++) {
    expect(one.view(range)[0]).toBe(1);
    expect(two.view(range)[0]).toBe(2);
  }
});

test("a range without references has no view, and has one again when it is allocated anew", async () => {
  using file = MemoryFile.create();
  const range = file.allocate(PAGE_SIZE);
  file.view(range)[0] = 1;
  file.decRef(range);
  expect(() => file.view(range)).toThrow("has none");
  await file.released();
  expect(file.allocate(PAGE_SIZE)).toEqual(range);
  expect(file.view(range)[0]).toBe(0);
  const again = file.view(range);
  expect(file.view(range)).toBe(again);
});

test("a view whose buffer was transferred away is not given again", () => {
  using file = MemoryFile.create();
  const range = file.allocate(PAGE_SIZE);
  for (const type of [Uint8Array, Float64Array, DataView]) {
    const { buffer } = file.view<ArrayBufferView<ArrayBuffer>>(range, type);
    buffer.transfer();
    const next = file.view<ArrayBufferView<ArrayBuffer>>(range, type);
    expect([buffer.byteLength, next.byteLength]).toEqual([0, PAGE_SIZE]);
  }
  file.view(range).buffer.transfer();
  writable(range).end = range.start;
  expect(() => file.view(range)).toThrow(RangeError);
});

test("after destroy a range with a view throws as any other, also if another thread destroyed the file", () => {
  const file = MemoryFile.create();
  const range = file.allocate(PAGE_SIZE);
  const view = file.view(range);
  Atomics.store(coreOf(file).words, Word.Destroyed, 1);
  expect(() => file.view(range)).toThrow(DestroyedError);
  expect(view.byteLength).toBe(0);
  const other = MemoryFile.create();
  const same = other.allocate(PAGE_SIZE);
  other.view(same);
  other.destroy();
  expect(() => other.view(same)).toThrow(DestroyedError);
});

test("what is let go is forgotten by its range, and what is asked for through ranges is not", () => {
  using file = MemoryFile.create();
  const { base } = coreOf(file).mapping;
  const views = new Views(base, () => {}, 16);
  const ranges = Array.from({ length: 64 }, () => file.allocate(PAGE_SIZE));
  Object.defineProperty(coreOf(file), "views", { value: views });
  const hot = file.view(ranges[0]!);
  const cold = file.view(ranges[1]!);
  const twin = new FileRange(ranges[1]!.start, ranges[1]!.end);
  discardSome(file);
  expect(file.view(twin)).toBe(cold);
  for (let round = 0; round < 10; round++) {
    for (let i = 2; i < ranges.length; i++) {
      file.view(ranges[i]!);
      if (i % 4 === 0) expect(file.view(ranges[0]!)).toBe(hot);
    }
  }
  const next = file.view(ranges[1]!);
  expect(next).not.toBe(cold);
  expect(file.view(twin)).toBe(next);
  cold[0] = 7;
  expect(next[0]).toBe(7);
  expect(views.detachAll()).toBe(true);
  expect([hot.length, cold.length, next.length]).toEqual([0, 0, 0]);
});

test("what a range remembers is nobody else's to see", () => {
  using file = MemoryFile.create();
  const range = file.allocate(PAGE_SIZE);
  file.view(range);
  expect(range).toEqual(new FileRange(range.start, range.end));
  expect(Object.keys(range)).toEqual(["start", "end"]);
  expect(JSON.parse(JSON.stringify(range))).toEqual({ start: range.start, end: range.end });
  expect(structuredClone({ ...range })).toEqual({ start: range.start, end: range.end });
  expect(Object.keys(structuredClone(range))).toEqual(["start", "end"]);
  expect(Bun.inspect(range)).not.toContain("view");
  // A proxy is no FileRange: what it stands for is looked up.
  expect(file.view(new Proxy(range, {}))).toBe(file.view(range));
});

test("what is no range is refused as ever", () => {
  using file = MemoryFile.create();
  file.allocate(PAGE_SIZE);
  for (const bad of [undefined, null, 1, "range", {}, { start: "0", end: PAGE_SIZE }]) {
    expect(() => file.view(bad as never)).toThrow(TypeError);
  }
});
