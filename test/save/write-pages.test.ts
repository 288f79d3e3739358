/**
 * Finding and writing page contents: against a naive pass over the memory, and what it costs in
 * system calls.
 */
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
  truncateFile,
} from "../../ffi/index.ts";
import { FullUnits } from "../../src/save/data-finder.ts";
import { buildMap, storedExtents } from "../../src/save/build-map.ts";
import { atOnce } from "../../src/threads/slices.ts";
import { describeFile } from "../../src/save/file-writer.ts";
import { FrameList } from "../../src/save/frame-list.ts";
import { createFrames, createTable, openTable } from "../../src/save/save-table.ts";
import { listWork } from "../../src/save/work-list.ts";
import { mostBytesOf, type WriteResult, writeUsedPages } from "../../src/save/write-pages.ts";
import { createWriteHandle, openWriteHandle, WriteWord } from "../../src/save/write-state.ts";
import { run, type WriteSource } from "../../src/save/write-task.ts";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { coreOf } from "../../src/file/memory-file.ts";
import { withDirectory } from "../checkpoint/support/directory.ts";

const PIECE_PAGES = (2 * 1024 * 1024) / PAGE_SIZE;
type PageState = "absent" | "zero" | "data" | "unused";

afterEach(() => setFaultHook(undefined));

/**
 * A file with these pages from page 0 on; `data` pages hold their own number and that of the file.
 */
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
    // Every fifth page begins a run without a gap, as between two kinds.
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
      address: null,
      overlay: null,
      table: createTable(Math.max(1, states.length), true).handle,
    },
  };
}

/** Extents end with their unit: joined to runs of pages. */
function joined(extents: readonly [number, number][]): [number, number][] {
  const runs: [number, number][] = [];
  for (const [start, length] of extents) {
    const last = runs.at(-1);
    if (last !== undefined && last[0] + last[1] === start) last[1] += length;
    else runs.push([start, length]);
  }
  return runs;
}

interface Outcome {
  readonly written: WriteResult;
  readonly sources: readonly WriteSource[];
}

const HASH_SEED = 77;
const PLAIN = {
  hashSeed: HASH_SEED,
  compression: "none",
  firstFrame: 0,
  writtenBytes: 0,
  progressBytes: 0,
  isMove: false,
} as const;

/** What must be written, by looking at every page. */
function expectWritten(
  files: readonly (readonly PageState[])[],
  { written, sources }: Outcome,
  path: string,
): void {
  const bytes = readFileSync(path);
  let at = 0;
  let zeroPages = 0;
  files.forEach((states, tag) => {
    const extents: [number, number][] = [];
    const crcs: number[] = [];
    const hashes: bigint[] = [];
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
      crcs.push(Bun.hash.crc32(contents));
      hashes.push(Bun.hash.xxHash3(contents, HASH_SEED as never) as bigint);
      at++;
    });
    const frames = new FrameList();
    frames.addRows(0, written.frames, written.frameCount);
    const source = sources[tag]!;
    const table = openTable(source.table);
    const built = atOnce(buildMap(atOnce(storedExtents(source, table)), table, frames, () => 1));
    const { start, length } = built.pageMap.extents;
    expect(joined([...start].map((page, i) => [page, length[i]!]))).toEqual(extents);
    expect([...built.crcs]).toEqual(crcs);
    expect([...built.hashes]).toEqual(hashes);
  });
  expect(written.writtenPages).toBe(at);
  expect(bytes.byteLength).toBe(at * PAGE_SIZE);
  expect(written.zeroPages).toBe(zeroPages);
}

async function writeFiles(
  files: readonly (readonly PageState[])[],
  path: string,
): Promise<Outcome> {
  const made = files.map((states, tag) => fileOf(states, tag));
  const sources = made.map(({ source }) => source);
  const fd = openFile(path, O_RDWR | O_CREAT);
  try {
    const mostBytes = sources.reduce((sum, source) => sum + mostBytesOf(source), 0);
    const sink = describeFile(fd, path, mostBytes);
    const written = await writeUsedPages({ ...PLAIN, sources, sink }, {});
    truncateFile(fd, written.writtenBytes);
    return { written, sources };
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

test("writeUsedPages writes the pages that a pass over a random file finds", async () => {
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

test("writeUsedPages writes contents in the order of memory with several threads", async () => {
  await withDirectory(async (root) => {
    const states = Array.from(
      { length: 20 * PIECE_PAGES },
      (_, page): PageState => (page % 4 === 3 ? "zero" : "data"),
    );
    expectWritten([states], await writeFiles([states], `${root}/pages`), `${root}/pages`);
  });
});

/** One thread's work, in this thread, with the calls that it makes. */
async function writeHere(
  states: readonly PageState[],
  path: string,
  direct = false,
  fullUnits = FullUnits.create(states.length),
) {
  const { file, source } = fileOf(states, 0);
  const fd = openFile(path, O_RDWR | O_CREAT);
  const isDirect = direct && setDirectIo(fd, true);
  const handle = createWriteHandle();
  const work = listWork([source]);
  const before = { ...syscallCounts };
  await run({
    ...PLAIN,
    sources: [source],
    work,
    ticketEntries: 1,
    handle,
    fullUnits: [fullUnits],
    frames: createFrames(work.unit.length),
    sink: { kind: "file", fd, path, allocation: null },
  });
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
    placed: openWriteHandle(handle).words[WriteWord.WrittenPages]!,
    isDirect,
    endsDirect: (flags & O_DIRECT) !== 0,
  };
}

test("writeUsedPages makes two seeks for an extent, and a write for 2 MiB", async () => {
  await withDirectory(async (root) => {
    const dense = await writeHere(Array<PageState>(8 * PIECE_PAGES).fill("data"), `${root}/dense`);
    expect(dense).toMatchObject({ lseek: 2, pwrite: 8 });
    const extents = 2 * PIECE_PAGES;
    const states = Array.from(
      { length: 2 * extents },
      (_, page): PageState => (page % 2 === 0 ? "data" : "absent"),
    );
    const sparse = await writeHere(states, `${root}/sparse`);
    expect(sparse.pwrite).toBe(4);
    expect(sparse.lseek).toBeLessThanOrEqual(2 * extents + 4);
    const zero = await writeHere(Array<PageState>(4 * PIECE_PAGES).fill("zero"), `${root}/zero`);
    expect(zero).toMatchObject({ pwrite: 0, placed: 0 });
  });
});

test("FullUnits tell a thread of an extent that another thread has found", async () => {
  await withDirectory(async (root) => {
    const states = Array<PageState>(8 * PIECE_PAGES + 5).fill("data");
    const fullUnits = FullUnits.create(states.length);
    const first = await writeHere(states, `${root}/first`, false, fullUnits);
    const second = await writeHere(states, `${root}/second`, false, fullUnits);
    expect(first.lseek).toBe(2);
    // For the unit that the file's end cuts.
    expect(second.lseek).toBe(2);
    expect(second.placed).toBe(states.length);
    expect(readFileSync(`${root}/second`).equals(readFileSync(`${root}/first`))).toBe(true);
  });
});

test("FullUnits.lookUnlessFull goes on without a thread that died while it looked", () => {
  const shared = FullUnits.create(PIECE_PAGES);
  new Int32Array(shared, 0, 1)[0] = 1;
  const units = new FullUnits(shared);
  let looks = 0;
  units.lookUnlessFull(0, () => looks++);
  units.note(0, PIECE_PAGES);
  units.lookUnlessFull(0, () => looks++);
  expect(looks).toBe(1);
});

test("writeUsedPages uses the page cache after a refused direct write", async () => {
  await withDirectory(async (root) => {
    let refusals = 0;
    setFaultHook((syscall) =>
      syscall === "pwrite" && refusals++ === 0 ? { errno: 22 } : undefined,
    );
    const states = Array<PageState>(2 * PIECE_PAGES).fill("data");
    const written = await writeHere(states, `${root}/pages`, true);
    expect(written).toMatchObject({ placed: states.length, endsDirect: false, pwrite: 3 });
    expect(readFileSync(`${root}/pages`).byteLength).toBe(states.length * PAGE_SIZE);
    setFaultHook(undefined);
    const again = await writeHere(states, `${root}/again`, true);
    expect(again.endsDirect).toBe(again.isDirect);
    expect(again.pwrite).toBe(2);
  });
});

test("writeUsedPages returns blocks that it allocated for zero pages", async () => {
  await withDirectory(async (root) => {
    const path = `${root}/pages`;
    const states = Array.from(
      { length: 36 * PIECE_PAGES },
      (_, page): PageState => (page < 8 * PIECE_PAGES ? "data" : "zero"),
    );
    const { written } = await writeFiles([states], path);
    expect(written).toMatchObject({ zeroPages: 28 * PIECE_PAGES });
    const fd = openFile(path, O_RDWR);
    const { sizeBytes, allocatedBytes } = fileStatus(fd);
    closeFile(fd);
    expect(sizeBytes).toBe(8 * PIECE_PAGES * PAGE_SIZE);
    expect(allocatedBytes).toBeLessThan(sizeBytes + 2 ** 20);
  });
});
