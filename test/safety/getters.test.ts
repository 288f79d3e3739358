import { expect, test } from "bun:test";
import { DestroyedError, MemoryFile, OutOfMemoryError, PAGE_SIZE } from "../../src/index.ts";

/** The library, for programs of their own. */
const LIBRARY = JSON.stringify(new URL("../../src/index.ts", import.meta.url).href);

/** Bounds that are right when they are read first, and far outside of the file afterwards. */
function shiftingRange(
  start: number,
  end: number,
): { readonly start: number; readonly end: number } {
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

test("a range whose bounds are getters keeps the bounds that were checked", () => {
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

test("a range's getter that destroys the file is an error in every method", async () => {
  const methods = [
    "view",
    "views",
    "incRef",
    "decRef",
    "hasUniqueRef",
    "firstSharedRange",
    "decommit",
    "isLoaded",
  ] as const;
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

/** An option that is `first` when it is read first, and `later` afterwards. */
function shifting(name: string, first: unknown, later: unknown): object {
  let reads = 0;
  return Object.defineProperty({}, name, { get: () => (reads++ === 0 ? first : later) });
}

test("an option of allocate() or create() that is a getter keeps its first value", () => {
  using file = MemoryFile.create({ expectHugepages: true });
  file.allocate(PAGE_SIZE, shifting("kind", 1, 1e6));
  file.allocate(PAGE_SIZE, shifting("group", 1, -1.5));
  file.allocate(PAGE_SIZE, shifting("huge", false, true));
  const used = file
    .dump()
    .split("\n")
    .filter((line) => line.includes("used"));
  expect(used).toEqual([
    "[0, 4096) used refs=1 kind=1 group=0",
    "[4096, 8192) used refs=1 kind=1 group=1",
    "[8192, 12288) used refs=1 kind=1 group=0",
  ]);
  using limited = MemoryFile.create(shifting("limitBytes", 2 * PAGE_SIZE, Number.NaN));
  expect(() => limited.allocate(3 * PAGE_SIZE)).toThrow(OutOfMemoryError);
});

// In a process of its own, because a search in the tables of a destroyed file did not end.
test("an option that destroys the file is an error in allocate and updateUsage", async () => {
  const program = `
    import { MemoryFile, PAGE_SIZE } from ${LIBRARY};
    const options = (file, name) =>
      Object.defineProperty({}, name, { get: () => void file.destroy() });
    const groups = (file) => ({ *[Symbol.iterator]() { yield 0; file.destroy(); } });
    const told = [];
    const call = (what, of) => {
      const file = MemoryFile.create();
      file.allocate(PAGE_SIZE);
      try { what(file); told.push(of + " returned"); } catch (error) { told.push(error.code); }
    };
    for (const name of ["kind", "group", "mode", "huge", "direction", "fill"])
      call((file) => file.allocate(PAGE_SIZE, options(file, name)), name);
    call((file) => file.updateUsage(groups(file)), "groups");
    console.log(told.join(" "));`;
  const child = Bun.spawn([process.execPath, "-e", program], {
    timeout: 20_000,
    stdout: "pipe",
    stderr: "inherit",
  });
  expect(await new Response(child.stdout).text()).toBe(
    `${Array(7).fill("ERR_DESTROYED").join(" ")}\n`,
  );
  expect(await child.exited).toBe(0);
}, 30_000);
