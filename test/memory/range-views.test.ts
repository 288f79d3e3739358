/** MemoryFile.view(): the view of a range, and its errors. */
import { expect, test } from "bun:test";
import { DestroyedError, FileRange, MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { Word } from "../../src/control/control.ts";
import { coreOf } from "../../src/file/memory-file.ts";

test("view gives one view for equal ranges", () => {
  using file = MemoryFile.create();
  const range = file.allocate(2 * PAGE_SIZE);
  const view = file.view(range);
  for (const same of [
    range,
    new FileRange(range.start, range.end),
    { start: range.start, end: range.end },
    Object.freeze(new FileRange(range.start, range.end)),
    new Proxy(range, {}),
  ])
    expect(file.view(same)).toBe(view);
});

test("view follows a range whose bounds were changed", () => {
  using file = MemoryFile.create();
  const range = file.allocate(4 * PAGE_SIZE) as { start: number; end: number };
  const { start } = range;
  expect(file.view(range).byteLength).toBe(4 * PAGE_SIZE);
  range.end = start + PAGE_SIZE;
  expect(file.view(range).byteLength).toBe(PAGE_SIZE);
});

test("view as another type is another view of the same memory", () => {
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

test("view of the same range in two files is each file's own", () => {
  using one = MemoryFile.create();
  using two = MemoryFile.create();
  const range = one.allocate(PAGE_SIZE);
  expect(two.allocate(PAGE_SIZE)).toEqual(range);
  one.view(range)[0] = 1;
  two.view(range)[0] = 2;
  expect([one.view(range)[0], two.view(range)[0]]).toEqual([1, 2]);
});

test("view throws without references, and works again after the next allocate", async () => {
  using file = MemoryFile.create();
  const range = file.allocate(PAGE_SIZE);
  file.view(range)[0] = 1;
  file.decRef(range);
  expect(() => file.view(range)).toThrow("has none");
  await file.released();
  expect(file.allocate(PAGE_SIZE)).toEqual(range);
  expect(file.view(range)[0]).toBe(0);
});

test("view of one range ignores another range's references", () => {
  using file = MemoryFile.create();
  for (const type of [Uint8Array, Float64Array, BigUint64Array]) {
    const [one, two] = [file.allocate(PAGE_SIZE), file.allocate(PAGE_SIZE)];
    const view = (range: FileRange) => file.view<ArrayBufferView>(range, type);
    view(one);
    view(two);
    file.decRef(one);
    view(two);
    expect(() => view(one)).toThrow("has none");
  }
});

test("view makes a new view after its buffer was transferred away", () => {
  using file = MemoryFile.create();
  const range = file.allocate(PAGE_SIZE);
  for (const type of [Uint8Array, Float64Array, DataView]) {
    const { buffer } = file.view<ArrayBufferView<ArrayBuffer>>(range, type);
    buffer.transfer();
    const next = file.view<ArrayBufferView<ArrayBuffer>>(range, type);
    expect([buffer.byteLength, next.byteLength]).toEqual([0, PAGE_SIZE]);
  }
});

test("view throws after another thread destroyed the file, and its views have ended", () => {
  const file = MemoryFile.create();
  const range = file.allocate(PAGE_SIZE);
  const view = file.view(range);
  Atomics.store(coreOf(file).words, Word.Destroyed, 1);
  expect(() => file.view(range)).toThrow(DestroyedError);
  expect(view.byteLength).toBe(0);
});

test("view refuses a value that is not a range", () => {
  using file = MemoryFile.create();
  file.allocate(PAGE_SIZE);
  for (const bad of [undefined, null, 1, "range", {}, { start: "0", end: PAGE_SIZE }])
    expect(() => file.view(bad as never)).toThrow(TypeError);
});
