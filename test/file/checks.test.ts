/** `checks: true` finds mistakes with freed pages. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { addressOf, bufferAt } from "../../ffi/index.ts";

const library = new URL("../../src/index.ts", import.meta.url).href;

function catchError(work: () => unknown): Error {
  try {
    work();
  } catch (error) {
    return error as Error;
  }
  throw new Error("Expected it to throw");
}

test("checks end a view when one of its pages is freed, and no other view", () => {
  using file = MemoryFile.create({ checks: true });
  const range = file.allocate(4 * PAGE_SIZE);
  const views = [0, 1, 2, 3].map((page) =>
    file.view({ start: page * PAGE_SIZE, end: (page + 1) * PAGE_SIZE }),
  );
  const words = file.view({ start: 0, end: 2 * PAGE_SIZE }, Float64Array);
  const all = file.view(range);
  file.incRef({ start: PAGE_SIZE, end: 2 * PAGE_SIZE });
  file.decRef({ start: PAGE_SIZE, end: 3 * PAGE_SIZE });
  expect([...views, words, all].map(({ byteLength }) => byteLength)).toEqual([
    PAGE_SIZE,
    PAGE_SIZE,
    0,
    PAGE_SIZE,
    2 * PAGE_SIZE,
    0,
  ]);
  file.decRef({ start: 0, end: PAGE_SIZE });
  expect([words.length, views[1]!.length]).toEqual([0, PAGE_SIZE]);
});

test("checks poison freed pages until they are released; new pages are zero", async () => {
  using file = MemoryFile.create({ checks: true });
  const range = file.allocate(2 * PAGE_SIZE);
  file.view(range)[0] = 7;
  // Made without the file's knowledge, like another thread's view.
  const stale = new Uint8Array(bufferAt(addressOf(file.view(range)), PAGE_SIZE));
  file.decRef(range);
  expect([stale[0], stale[PAGE_SIZE - 1]]).toEqual([0xdb, 0xdb]);
  for (const mode of ["callerIndirectCommit", "commit", "uncommitted"] as const) {
    const again = file.allocate(2 * PAGE_SIZE, { mode });
    expect(file.view(again).every((byte) => byte === 0)).toBe(true);
    file.view(again).fill(1);
    file.decRef(again);
  }
  await file.released();
  expect(stale[0]).toBe(0);
  stale.buffer.transfer();
});

test("checks commit no memory that was never touched", () => {
  using file = MemoryFile.create({ checks: true });
  const range = file.allocate(2 ** 30);
  file.view(range)[PAGE_SIZE] = 1;
  file.decRef(range);
  expect(file.totalUsageBytes).toBeLessThanOrEqual(PAGE_SIZE);
});

test("checks name the first drop after a double free or a use after free", () => {
  using file = MemoryFile.create({ checks: true });
  const range = file.allocate(2 * PAGE_SIZE);
  function dropsFirst(): void {
    file.decRef(range);
  }
  dropsFirst();
  for (const call of [
    () => file.decRef(range),
    () => file.incRef(range),
    () => file.view(range),
    () => file.decommit({ start: 0, end: PAGE_SIZE }),
  ]) {
    const error = catchError(call);
    expect(error).toBeInstanceOf(RangeError);
    expect(error.message).toContain("dropsFirst");
    expect(error.message).toContain("checks.test.ts");
  }
  using plain = MemoryFile.create();
  const other = plain.allocate(PAGE_SIZE);
  plain.decRef(other);
  expect(catchError(() => plain.decRef(other)).message).toContain("checks: true");
});

test("checks end the views of another thread at its next call", async () => {
  using file = MemoryFile.create({ checks: true });
  const range = file.allocate(PAGE_SIZE);
  const program = `
    import { MemoryFile } from ${JSON.stringify(library)};
    let file, view;
    self.onmessage = ({ data }) => {
      if (data.handle) {
        file = MemoryFile.attach(data.handle);
        view = file.view(data.range);
        postMessage(view.length);
      } else {
        file.view(data.other);
        postMessage(view.length);
      }
    };`;
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-checks-"));
  writeFileSync(join(directory, "worker.ts"), program);
  const worker = new Worker(join(directory, "worker.ts"));
  const answer = async (message: object) =>
    await new Promise((resolve) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.postMessage(message);
    });
  const plain = ({ start, end }: { start: number; end: number }) => ({ start, end });
  expect(await answer({ handle: file.share(), range: plain(range) })).toBe(PAGE_SIZE);
  const other = file.allocate(PAGE_SIZE);
  file.decRef(range);
  expect(await answer({ other: plain(other) })).toBe(0);
  worker.terminate();
  rmSync(directory, { recursive: true });
});
