/** What a FileRange remembers of its view: always the view that a look-up would give, and never seen from outside. */
import { expect, test } from "bun:test";
import { DestroyedError, FileRange, MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { Views } from "../../src/memory/views.ts";
import { coreOf } from "../../src/file/memory-file.ts";
import { Word } from "../../src/control/control.ts";

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

test("bounds can be written until the first view, and not after", () => {
  using file = MemoryFile.create();
  const range = file.allocate(4 * PAGE_SIZE);
  const { start, end } = range;
  writable(range).end = start + PAGE_SIZE;
  expect(file.view(range).byteLength).toBe(PAGE_SIZE);
  expect(() => {
    writable(range).start = start + PAGE_SIZE;
  }).toThrow(TypeError);
  expect(() => {
    writable(range).end = end;
  }).toThrow(TypeError);
  expect(() => Object.defineProperty(range, "start", { get: () => end })).toThrow(TypeError);
  expect([range.start, range.end, file.view(range).byteLength]).toEqual([
    start,
    start + PAGE_SIZE,
    PAGE_SIZE,
  ]);
  // What else a program has to say of it, it may.
  Object.assign(range, { label: "one" });
  expect(file.view(range).byteLength).toBe(PAGE_SIZE);
});

/** Has every range looked up anew, and remember what is found. */
function discardSome(file: MemoryFile): void {
  file.decRef(file.allocate(PAGE_SIZE));
}

/** A range whose bounds are asked of `start` and `end` each time. */
function rangeAsking(start: () => unknown, end: () => unknown): FileRange {
  const range = new FileRange(0, 0);
  Object.defineProperty(range, "start", { get: start, configurable: true });
  Object.defineProperty(range, "end", { get: end, configurable: true });
  return range;
}

test("bounds that are the program's own code are asked each time, and what they answer is shown", () => {
  using file = MemoryFile.create();
  const [one, two] = Array.from({ length: 2 }, (_, i) => {
    const range = file.allocate(PAGE_SIZE);
    file.view(range)[0] = i + 1;
    return range;
  }) as [FileRange, FileRange];
  let now = one;
  const range = rangeAsking(
    () => now.start,
    () => now.end,
  );
  // Half of a range is the program's code: the first, the second.
  const first = new FileRange(one.start, two.end);
  Object.defineProperty(first, "start", { get: () => now.start, configurable: true });
  const half = new FileRange(one.start, one.end);
  Object.defineProperty(half, "end", { get: () => now.end, configurable: true });
  for (let round = 0; round < 3; round++) {
    discardSome(file);
    for (let i = 0; i < 2; i++) {
      now = one;
      expect([file.view(range)[0], file.view(half).byteLength]).toEqual([1, PAGE_SIZE]);
      expect(file.view(first).byteLength).toBe(2 * PAGE_SIZE);
      now = two;
      expect([file.view(range)[0], file.view(half).byteLength]).toEqual([2, 2 * PAGE_SIZE]);
      expect(file.view(first).byteLength).toBe(PAGE_SIZE);
    }
  }
  // And can be changed, all of them.
  Object.defineProperty(half, "start", { value: one.start, writable: true });
  file.decRef(two);
  expect(() => file.view(range)).toThrow("has none");
  expect(() => file.view(half)).toThrow("has none");
  // Checked as one, and then called two: it is not two's for that.
  let asked = 0;
  const changing = rangeAsking(
    () => (asked++ === 0 ? one.start : two.start),
    () => one.end,
  );
  discardSome(file);
  expect(file.view(changing)[0]).toBe(1);
  Object.defineProperty(changing, "start", { value: two.start });
  Object.defineProperty(changing, "end", { value: two.end });
  expect(() => file.view(changing)).toThrow("has none");
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

test("a view that runs the program's code when it is asked for its length is looked at after that", () => {
  let act = () => {};
  const setUp = () => {
    const file = MemoryFile.create();
    const range = file.allocate(PAGE_SIZE);
    const view = file.view(range);
    Object.defineProperty(view, "byteLength", {
      get: () => {
        const now = act;
        act = () => {};
        now();
        return PAGE_SIZE;
      },
    });
    discardSome(file);
    return { file, range, view };
  };
  const destroyed = setUp();
  act = () => destroyed.file.destroy();
  expect(() => destroyed.file.view(destroyed.range)).toThrow(DestroyedError);
  const dropped = setUp();
  act = () => dropped.file.decRef(dropped.range);
  expect(() => dropped.file.view(dropped.range)).toThrow("has none");
  dropped.file.destroy();
  // Another file's view of the same range is remembered meanwhile: it is not this one's.
  const lent = setUp();
  using other = MemoryFile.create();
  expect(other.allocate(PAGE_SIZE)).toEqual(lent.range);
  discardSome(other);
  act = () => other.view(lent.range);
  for (let i = 0; i < 3; i++) expect(lent.file.view(lent.range)).toBe(lent.view);
  lent.file.destroy();
});

test("a frozen range is a range", () => {
  using file = MemoryFile.create();
  for (const lock of [Object.freeze, Object.seal, Object.preventExtensions]) {
    const range = lock(file.allocate(PAGE_SIZE)) as FileRange;
    const view = file.view(range);
    expect(file.view(range)).toBe(view);
    discardSome(file);
    expect(file.view(range)).toBe(view);
  }
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

test("that one range was looked at again says nothing of another", () => {
  using file = MemoryFile.create();
  for (const type of [Uint8Array, Float64Array, BigUint64Array]) {
    // Known and looked at again, or sought in the table.
    for (const again of [
      (range: FileRange) => range,
      ({ start, end }: FileRange) => new FileRange(start, end),
    ]) {
      const [one, two] = Array.from({ length: 2 }, () => file.allocate(PAGE_SIZE)) as [
        FileRange,
        FileRange,
      ];
      const view = (range: FileRange) => file.view<ArrayBufferView>(range, type);
      view(one);
      view(two);
      file.decRef(one);
      view(again(two));
      expect(() => view(one)).toThrow("has none");
    }
  }
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
      if (i % 3 === 0) file.view(ranges[i]!);
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
