/**
 * The race rule: a scan does not count a page that was made uncommitted after the scan saw it. The
 * interleavings are forced: the hook on system calls stops a scan between two of its lseek calls,
 * when it has seen pages and not yet applied them.
 */
import { afterEach, expect, test } from "bun:test";
import { setFaultHook } from "../../ffi/index.ts";
import { FileRange, MemoryFile, type MemoryFileHandle, PAGE_SIZE } from "../../src/index.ts";
import { coreOf } from "../../src/file/memory-file.ts";
import { Word } from "../../src/control/control.ts";
import { THREAD_ID } from "../../src/threads/thread.ts";
import type { Request } from "./support/attached-worker.ts";
import { plain, settledUsage } from "./support/settle.ts";

afterEach(() => setFaultHook(undefined));

const pages = (first: number, last: number) => new FileRange(first * PAGE_SIZE, last * PAGE_SIZE);

/**
 * Runs `interleaved` once, when the scan asks for data behind `page`: it has seen the pages before
 * by then.
 */
function whenScanReaches(page: number, interleaved: () => void): void {
  setFaultHook((syscall, _fd, offset) => {
    if (syscall !== "lseek" || offset < page * PAGE_SIZE) return undefined;
    setFaultHook(undefined);
    interleaved();
    return undefined;
  });
}

/** A file of 8 touched pages, and an untouched page 8. The scan's last question is about page 8. */
function touchedFile(): { file: MemoryFile; range: FileRange } {
  const file = MemoryFile.create();
  const range = file.allocate(8 * PAGE_SIZE, { group: 1 });
  file.view(range).fill(1);
  return { file, range };
}

test("a scan counts the pages that it saw, if nothing disturbed them", () => {
  const { file, range } = touchedFile();
  let known = -1;
  whenScanReaches(8, () => {
    known = file.usage().totalBytes;
  });
  file.updateUsage();
  expect([known, file.usage().totalBytes]).toEqual([0, range.length]);
  file.destroy();
});

test("a scan does not count pages that were decommitted after it saw them", () => {
  const { file } = touchedFile();
  whenScanReaches(8, () => file.decommit(pages(2, 5)));
  expect(file.updateUsage()).toBe(true);
  expect(file.usage().totalBytes).toBe(5 * PAGE_SIZE);
  expect(file.totalUsageBytes).toBe(5 * PAGE_SIZE);
  file.destroy();
});

test("a scan does not count pages that another thread decommitted after it saw them", async () => {
  const { file } = touchedFile();
  const worker = new Worker(new URL("./support/attached-worker.ts", import.meta.url));
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const handle: MemoryFileHandle = file.share();
  const attached = new Promise((resolve) =>
    worker.addEventListener("message", resolve, { once: true }),
  );
  worker.postMessage({ handle } satisfies Request);
  await attached;
  whenScanReaches(8, () => {
    worker.postMessage({ gate, decommit: { start: 0, end: 3 * PAGE_SIZE } } satisfies Request);
    expect(Atomics.wait(gate, 0, 0, 20_000)).not.toBe("timed-out");
  });
  expect(file.updateUsage()).toBe(true);
  expect(file.usage().totalBytes).toBe(5 * PAGE_SIZE);
  // The other thread sees the pages that this one found.
  file.view(pages(0, 1)).fill(1);
  const answer = new Promise<number>((resolve) =>
    worker.addEventListener("message", ({ data }) => resolve(data as number), { once: true }),
  );
  settledUsage(file);
  worker.postMessage({ usage: true } satisfies Request);
  expect(await answer).toBe(6 * PAGE_SIZE);
  const closed = new Promise((resolve) =>
    worker.addEventListener("close", resolve, { once: true }),
  );
  worker.terminate();
  await closed;
  file.destroy();
});

test("a scan does not count pages that were released after it saw them", () => {
  const { file } = touchedFile();
  whenScanReaches(8, () => {
    file.decRef(pages(4, 8));
    coreOf(file).releaser.releaseAll();
  });
  file.updateUsage();
  expect(plain(file.usage()).groups).toEqual({ "1/1": 4 * PAGE_SIZE });
  file.destroy();
});

test("updateUsage does not count a page for its new owner after a release", () => {
  const { file } = touchedFile();
  whenScanReaches(8, () => {
    file.decRef(pages(4, 8));
    coreOf(file).releaser.releaseAll();
    expect(file.allocate(4 * PAGE_SIZE, { group: 2 })).toEqual(pages(4, 8));
  });
  file.updateUsage();
  expect(plain(file.usage()).groups).toEqual({ "1/1": 4 * PAGE_SIZE });
  expect(file.usage().totalBytes).toBe(file.totalUsageBytes);
  file.destroy();
});

test("updateUsage counts a recycled page for its new owner", () => {
  const { file } = touchedFile();
  whenScanReaches(8, () => {
    file.decRef(pages(4, 8));
    expect(file.allocate(4 * PAGE_SIZE, { group: 2, mode: "commit" })).toEqual(pages(4, 8));
  });
  file.updateUsage();
  expect(plain(file.usage()).groups).toEqual({ "1/1": 4 * PAGE_SIZE, "2/1": 4 * PAGE_SIZE });
  file.destroy();
});

test("a scan counts pages as System memory if they were dropped after it saw them", () => {
  const { file } = touchedFile();
  whenScanReaches(8, () => file.decRef(pages(4, 8)));
  file.updateUsage();
  expect(plain(file.usage()).groups).toEqual({ "1/1": 4 * PAGE_SIZE, "0/0": 4 * PAGE_SIZE });
  file.destroy();
});

test("the next scan counts a page that was disturbed and is committed again", () => {
  const { file, range } = touchedFile();
  whenScanReaches(8, () => {
    file.decommit(pages(3, 4));
    file.view(pages(3, 4))[0] = 1;
  });
  file.updateUsage();
  expect(file.usage().totalBytes).toBe(7 * PAGE_SIZE);
  expect(settledUsage(file).totalBytes).toBe(range.length);
  file.destroy();
});

test("a scan stays right if the file grows while it runs", () => {
  const { file, range } = touchedFile();
  whenScanReaches(8, () => {
    const far = file.allocate(2 ** 30, { group: 2 });
    file.view(new FileRange(far.end - PAGE_SIZE, far.end))[0] = 1;
    file.decommit(pages(0, 1));
  });
  file.updateUsage();
  expect(plain(file.usage()).groups).toEqual({ "1/1": range.length - PAGE_SIZE });
  expect(plain(settledUsage(file)).groups).toEqual({
    "1/1": range.length - PAGE_SIZE,
    "2/1": PAGE_SIZE,
  });
  file.destroy();
});

test("updateUsage waits for no other thread's scan, and takes over a dead thread's", async () => {
  const { file, range } = touchedFile();
  const { words } = coreOf(file);
  // This thread lives. No thread has the other id, which is the largest possible.
  words[Word.Scanner] = THREAD_ID;
  expect(file.updateUsage()).toBe(false);
  words[Word.Scanner] = 2 ** 22 - 1;
  expect(file.updateUsage()).toBe(true);
  expect(words[Word.Scanner]).toBe(0);
  expect(file.usage().totalBytes).toBe(range.length);
  file.destroy();
});

test("updateUsage corrects impossible counts of a dead thread", () => {
  const { file, range } = touchedFile();
  file.updateUsage();
  const untouched = file.allocate(4 * PAGE_SIZE, { group: 2 });
  coreOf(file).noteCommitted(untouched.start / PAGE_SIZE, untouched.end / PAGE_SIZE);
  expect(file.usage().totalBytes).toBe(range.length + untouched.length);
  while (!file.updateUsage()) Bun.sleepSync(1);
  expect(plain(file.usage()).groups).toEqual({ "1/1": range.length });
  file.destroy();
});
