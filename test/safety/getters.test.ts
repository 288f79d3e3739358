import { expect, test } from "bun:test";
import { DestroyedError, MemoryFile, PAGE_SIZE } from "../../src/index.ts";

/** Bounds that are right the first time they are read, and far outside of the file from then on. */
function shiftingRange(start: number, end: number): { readonly start: number; readonly end: number } {
  const far = 2 ** 40;
  let starts = 0;
  let ends = 0;
  return {
    get start() {
      return starts++ === 0 ? start : far;
    },
    get end() {
      return ends++ === 0 ? end : far + PAGE_SIZE;
    },
  };
}

test("a range whose bounds are getters is what they answered when it was checked", () => {
  using file = MemoryFile.create();
  const { start, end } = file.allocate(2 * PAGE_SIZE);
  const shifting = () => shiftingRange(start, end);
  expect(file.view(shifting())).toEqual(file.view({ start, end }));
  expect(file.views(shifting()).map(({ byteLength }) => byteLength)).toEqual([2 * PAGE_SIZE]);
  file.view({ start, end }).fill(7);
  file.decommit(shifting());
  expect(file.view({ start, end }).every((byte) => byte === 0)).toBe(true);
  file.incRef(shifting());
  expect(file.hasUniqueRef(shifting())).toBe(false);
  expect(file.firstSharedRange(shifting())).toMatchObject({ start, end });
  file.decRef(shifting());
  expect(file.hasUniqueRef(shifting())).toBe(true);
  expect(file.isLoaded(shifting())).toBe(true);
});

test("a getter that destroys the file finds it destroyed, in every method that takes a range", async () => {
  const methods = ["view", "views", "incRef", "decRef", "hasUniqueRef", "firstSharedRange", "decommit", "isLoaded"] as const;
  const waits = ["awaitLoad", "awaitLoadSync", "retryLoad"] as const;
  for (const method of [...methods, ...waits]) {
    const file = MemoryFile.create();
    const { start, end } = file.allocate(PAGE_SIZE);
    const range = {
      start,
      get end() {
        file.destroy();
        return end;
      },
    };
    const call = async () => await (file[method] as (range: object) => unknown)(range);
    await expect(call()).rejects.toBeInstanceOf(DestroyedError);
  }
});
