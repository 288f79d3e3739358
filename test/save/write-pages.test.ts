/** Finding and writing page contents: against a naive pass over the memory, and what it costs in system calls. */
import { afterEach, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import {
  closeFile,
  fileStatus,
  O_CREAT,
  O_DIRECT,
  O_RDWR,
  openFile,
  setDirectIo,
  setFaultHook,
  syscallCounts,
} from "../../ffi/index.ts";
import { type WrittenPages, writeUsedPages } from "../../src/save/write-pages.ts";
import {
  createWriteHandle,
  openWriteHandle,
  type WriteSource,
  WriteWord,
} from "../../src/save/write-state.ts";
import { run } from "../../src/save/write-task.ts";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { coreOf } from "../../src/file/memory-file.ts";
import { withDirectory } from "../checkpoint/support/directory.ts";

const PIECE_PAGES = (2 * 1024 * 1024) / PAGE_SIZE;
type PageState = "absent" | "zero" | "data" | "unused";

afterEach(() => setFaultHook(undefined));

/** A file with these pages from page 0 on; `data` pages hold their own number and that of the file. */
function fileOf(
  states: readonly PageState[],
  tag: number,
): { file: MemoryFile; source: WriteSource } {
  const file = MemoryFile.create();
  const range = file.allocate(states.length * PAGE_SIZE);
  const words = file.view(range, Uint32Array);
  const perPage = PAGE_SIZE / 4;
  states.forEach((state, page) => {
    if (state === "zero") words[page * perPage] = 0;
    // The word that is not zero may be any of the page's.
    if (state === "data")
      words[page * perPage + ((page * 37) % perPage)] = (tag << 24) | (page + 1);
  });
  const start: number[] = [];
  const length: number[] = [];
  states.forEach((state, page) => {
    if (state === "unused") return;
    // A new run now and then also without a gap, as between two kinds.
    if (page > 0 && states[page - 1] !== "unused" && page % 5 !== 0) length[length.length - 1]!++;
    else length[start.push(page) - 1] = 1;
  });
  const { control, mapping } = coreOf(file);
  const { fd, base } = mapping;
  return {
    file,
    source: {
      control: control.buffer,
      fd,
      base,
      start: Uint32Array.from(start),
      length: Uint32Array.from(length),
    },
  };
}

/** What must be written, by looking at every page. */
function expectWritten(
  files: readonly (readonly PageState[])[],
  written: WrittenPages,
  path: string,
): void {
  const bytes = readFileSync(path);
  let at = 0;
  let zeroPages = 0;
  files.forEach((states, tag) => {
    const extents: [number, number][] = [];
    states.forEach((state, page) => {
      if (state === "zero") zeroPages++;
      if (state !== "data") return;
      const last = extents.at(-1);
      if (last !== undefined && last[0] + last[1] === page) last[1]++;
      else extents.push([page, 1]);
      const contents = bytes.subarray(at * PAGE_SIZE, (at + 1) * PAGE_SIZE);
      const expected = new Uint32Array(PAGE_SIZE / 4);
      expected[(page * 37) % expected.length] = (tag << 24) | (page + 1);
      expect(contents.equals(new Uint8Array(expected.buffer))).toBe(true);
      expect(written.checksums[at]).toBe(Bun.hash.crc32(contents));
      at++;
    });
    const { start, length } = written.extents[tag]!;
    expect([...start].map((page, i) => [page, length[i]!])).toEqual(extents);
  });
  expect(written.checksums.length).toBe(at);
  expect(bytes.byteLength).toBe(at * PAGE_SIZE);
  expect(written.zeroPages).toBe(zeroPages);
}

async function writeFiles(
  files: readonly (readonly PageState[])[],
  path: string,
): Promise<WrittenPages> {
  const made = files.map((states, tag) => fileOf(states, tag));
  const fd = openFile(path, O_RDWR | O_CREAT);
  try {
    return await writeUsedPages(
      made.map(({ source }) => source),
      { fd, path },
      {},
    );
  } finally {
    closeFile(fd);
    for (const { file } of made) file.destroy();
  }
}

const statesArbitrary = fc
  .array(
    fc.record({
      state: fc.constantFrom<PageState>("absent", "zero", "data", "unused"),
      count: fc.oneof(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 900 })),
    }),
    { minLength: 1, maxLength: 12 },
  )
  .map((runs) => runs.flatMap(({ state, count }) => Array<PageState>(count).fill(state)));

test("random files: contents, extents, checksums and zero pages are those of a pass over every page", async () => {
  await withDirectory(async (root) => {
    let round = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(statesArbitrary, { minLength: 1, maxLength: 3 }), async (files) => {
        const path = `${root}/${round++}`;
        expectWritten(files, await writeFiles(files, path), path);
      }),
      { numRuns: 30 },
    );
  });
});

test("contents stand in the order of memory, whichever thread was faster", async () => {
  await withDirectory(async (root) => {
    const states = Array.from(
      { length: 20 * PIECE_PAGES },
      (_, page): PageState => (page % 4 === 3 ? "zero" : "data"),
    );
    expectWritten([states], await writeFiles([states], `${root}/pages`), `${root}/pages`);
  });
});

/** One thread's work, in this thread, with the calls that it makes. */
function writeHere(states: readonly PageState[], path: string, direct = false) {
  const { file, source } = fileOf(states, 0);
  const fd = openFile(path, O_RDWR | O_CREAT);
  const isDirect = direct && setDirectIo(fd, true);
  const handle = createWriteHandle(1, states.length);
  const before = { ...syscallCounts };
  run({ fd, path, sources: [source], handle, allocateBytes: 0 });
  const calls = (name: string) => (syscallCounts[name] ?? 0) - (before[name] ?? 0);
  const counts = { lseek: calls("lseek"), pwrite: calls("pwrite") };
  const flags = Number.parseInt(
    /flags:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "latin1"))![1]!,
    8,
  );
  closeFile(fd);
  file.destroy();
  return {
    ...counts,
    placed: openWriteHandle(handle).words[WriteWord.PlacedPages]!,
    isDirect,
    endsDirect: (flags & O_DIRECT) !== 0,
  };
}

test("system calls: two seeks for an extent, however long, and a write for 2 MiB", async () => {
  await withDirectory(async (root) => {
    const dense = writeHere(Array<PageState>(8 * PIECE_PAGES).fill("data"), `${root}/dense`);
    expect(dense).toMatchObject({ lseek: 2, pwrite: 8 });
    const extents = 2 * PIECE_PAGES;
    const states = Array.from(
      { length: 2 * extents },
      (_, page): PageState => (page % 2 === 0 ? "data" : "absent"),
    );
    const sparse = writeHere(states, `${root}/sparse`);
    expect(sparse.pwrite).toBe(2);
    expect(sparse.lseek).toBeLessThanOrEqual(2 * extents + 4);
    expect(writeHere(Array<PageState>(4 * PIECE_PAGES).fill("zero"), `${root}/zero`)).toMatchObject(
      { pwrite: 0, placed: 0 },
    );
  });
});

test("a direct write that the file system refuses is made through the page cache, and so are all after it", async () => {
  await withDirectory(async (root) => {
    let refusals = 0;
    setFaultHook((syscall) =>
      syscall === "pwrite" && refusals++ === 0 ? { errno: 22 } : undefined,
    );
    const states = Array<PageState>(2 * PIECE_PAGES).fill("data");
    const written = writeHere(states, `${root}/pages`, true);
    expect(written).toMatchObject({ placed: states.length, endsDirect: false, pwrite: 3 });
    expect(readFileSync(`${root}/pages`).byteLength).toBe(states.length * PAGE_SIZE);
    setFaultHook(undefined);
    const again = writeHere(states, `${root}/again`, true);
    expect(again.endsDirect).toBe(again.isDirect);
    expect(again.pwrite).toBe(2);
  });
});

test("what was allocated for zero pages is given back: the file is as long as its contents, and takes no more", async () => {
  await withDirectory(async (root) => {
    const path = `${root}/pages`;
    const states = Array.from(
      { length: 36 * PIECE_PAGES },
      (_, page): PageState => (page < 8 * PIECE_PAGES ? "data" : "zero"),
    );
    const written = await writeFiles([states], path);
    expect(written).toMatchObject({ zeroPages: 28 * PIECE_PAGES });
    const fd = openFile(path, O_RDWR);
    const { sizeBytes, allocatedBytes } = fileStatus(fd);
    closeFile(fd);
    expect(sizeBytes).toBe(8 * PIECE_PAGES * PAGE_SIZE);
    expect(allocatedBytes).toBeLessThan(sizeBytes + 2 ** 20);
  });
});
