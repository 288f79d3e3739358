/**
 * Faults while a checkpoint is loading: every waiter is answered with data or with an error,
 * nothing hangs, nothing leaks, and what failed can be looked at and tried again. Faults are
 * injected in every thread (support/fault-hook.ts).
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errnoNumber, uringUnavailable } from "../../ffi/index.ts";
import {
  CHUNK_SIZE,
  CorruptCheckpointError,
  DestroyedError,
  FileRange,
  HUGE_PAGE_SIZE,
  MemoryFile,
  NotLoadedError,
  PAGE_SIZE,
  SyscallError,
} from "../../src/index.ts";
import { exportTo, importFrom } from "../../src/gvisor/index.ts";
import { threadCount } from "../../src/threads/pool.ts";
import { expectDescriptors, namedDescriptors } from "./support/descriptors.ts";
import type { Faults } from "./support/fault-control.ts";
import { beginFaults } from "./support/in-process.ts";
import { checkStamped, pageWords, saveStamped, stampedFile, stampOf } from "./support/stamped.ts";

const PAGES_PER_UNIT = HUGE_PAGE_SIZE / PAGE_SIZE;
/** Eight units of 2 MiB. */
const PAGES = 8 * PAGES_PER_UNIT;
const READS = ["pread", "preadv", "uring_read", "uring_readv"] as const;
const noUring = uringUnavailable();
const QUEUES =
  noUring === null ? (["workers", "inline", "uring"] as const) : (["workers", "inline"] as const);
const EIO = errnoNumber("EIO");

let faults: Faults;
let endFaults: () => Promise<void>;
let directory: string;
let checkpoint: string;

beforeAll(async () => {
  ({ faults, end: endFaults } = await beginFaults());
});
afterAll(() => endFaults());
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "pgalloc-load-faults-"));
  checkpoint = join(directory, "checkpoint");
  await saveStamped(checkpoint, PAGES, 1);
});
afterEach(async () => {
  faults.disarm();
  rmSync(directory, { recursive: true });
  while (threadCount().busy > 0) await Bun.sleep(1);
});

/** The pages files of the checkpoint. */
function pagesFiles(): string[] {
  return readdirSync(checkpoint)
    .filter((name) => name.startsWith("pages"))
    .map((name) => join(checkpoint, name));
}

function units(first: number, end: number): FileRange {
  return new FileRange(first * HUGE_PAGE_SIZE, end * HUGE_PAGE_SIZE);
}

/**
 * As `askAll`, when the load has come to its end: a waiter may be answered a moment before all
 * counts are right.
 */
async function answers(file: MemoryFile, unitsEach = 1): Promise<("loaded" | Error)[]> {
  const answered = await askAll(file, unitsEach);
  while (file.isLoading) await Bun.sleep(1);
  return answered;
}

/** How the waiters of all units, one for so many, are answered: "loaded", or the error. */
async function askAll(file: MemoryFile, unitsEach = 1): Promise<("loaded" | Error)[]> {
  const waits = Array.from({ length: 8 / unitsEach }, (_, i) =>
    file.awaitLoad(units(unitsEach * i, unitsEach * (i + 1))),
  );
  const settled = await Promise.allSettled(waits);
  return settled.map((result) =>
    result.status === "fulfilled" ? "loaded" : (result.reason as Error),
  );
}

/**
 * Every page either throws when it is viewed, or is loaded and has its stamp. An aborted load may
 * still finish its reads.
 */
function checkPages(file: MemoryFile): void {
  const wrong: number[] = [];
  for (let page = 0; page < PAGES; page++) {
    const range = new FileRange(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
    const wasLoaded = file.isLoaded(range);
    const words = loadedWords(file, page);
    if (words === null ? wasLoaded : !file.isLoaded(range) || stampOf(words, page) !== 1)
      wrong.push(page);
  }
  expect(wrong).toEqual([]);
}

function loadedWords(file: MemoryFile, page: number): Uint32Array | null {
  try {
    return pageWords(file, page);
  } catch (error) {
    expect(error).toBeInstanceOf(NotLoadedError);
    return null;
  }
}

if (noUring !== null) test.skip(`queue uring (not available here: ${noUring})`, () => {});

describe.each(QUEUES)("queue %s", (queue) => {
  const load = () => MemoryFile.loadFrom(checkpoint, { background: true, queue });

  test("every read fails with EIO: waiters fail, and retryLoad loads everything", async () => {
    faults.arm({ action: "Fail", calls: READS, value: EIO, onlyPages: true });
    using file = await load();
    for (const answer of await answers(file))
      expect(answer).toMatchObject({ code: "EIO", syscall: "pread" });
    expect(file.isLoading).toBe(false);
    expect(file.loadStats()).toMatchObject({
      failedBytes: PAGES * PAGE_SIZE,
      loadedBytes: 0,
      error: { code: "EIO" },
    });
    expect(file.loadStats().error).toBeInstanceOf(SyscallError);
    // Later waiters hear the same, a second attempt on a disk that is still broken fails anew.
    await expect(file.awaitLoad(units(3, 4))).rejects.toMatchObject({ code: "EIO" });
    expect(() => file.awaitLoadSync(units(3, 4))).toThrow("EIO");
    await expect(file.retryLoad(units(0, 1))).rejects.toMatchObject({ code: "EIO" });
    await expect(file.saveTo(join(directory, "other"))).rejects.toMatchObject({ code: "EIO" });
    checkPages(file);
    faults.disarm();
    await file.retryLoad(units(3, 4));
    expect(file.isLoaded(units(3, 4))).toBe(true);
    await expect(file.awaitLoad(units(4, 5))).rejects.toMatchObject({ code: "EIO" });
    await file.retryLoad();
    expect(await answers(file)).toEqual(new Array(8).fill("loaded"));
    expect(file.loadStats()).toMatchObject({
      failedBytes: 0,
      loadedBytes: PAGES * PAGE_SIZE,
      error: null,
      isLoading: false,
    });
    checkPages(file);
  });

  test("a read that fails once is made again in smaller pieces, and no waiter fails", async () => {
    faults.arm({ action: "Fail", calls: READS, value: EIO, from: 2, until: 3, onlyPages: true });
    using file = await load();
    expect(await answers(file)).toEqual(new Array(8).fill("loaded"));
    expect(faults.hits).toBe(1);
    expect(file.loadStats()).toMatchObject({ failedBytes: 0, error: null });
    checkPages(file);
  });

  test("unreadable blocks fail their waiters; the other pages of their unit load", async () => {
    const first = 5 * PAGES_PER_UNIT + 100;
    faults.arm({
      action: "Fail",
      calls: READS,
      value: EIO,
      filePages: [first, first + 2],
      onlyPages: true,
    });
    using file = await load();
    const waits = Array.from({ length: PAGES_PER_UNIT }, (_, i) => {
      const page = 5 * PAGES_PER_UNIT + i;
      return file.awaitLoad(new FileRange(page * PAGE_SIZE, (page + 1) * PAGE_SIZE));
    });
    const settled = await Promise.allSettled(waits);
    const failed = settled.flatMap((result, i) =>
      result.status === "rejected" ? [{ i, error: result.reason }] : [],
    );
    expect(failed.map(({ i }) => i)).toEqual([100, 101]);
    for (const { error } of failed) expect(error).toMatchObject({ code: "EIO", syscall: "pread" });
    expect(failed[1]!.error.message).toContain(`offset ${(first + 1) * PAGE_SIZE}`);
    const answered = await answers(file);
    expect(answered.flatMap((answer, unit) => (answer === "loaded" ? [] : [unit]))).toEqual([5]);
    expect(file.loadStats()).toMatchObject({
      failedBytes: 2 * PAGE_SIZE,
      loadedBytes: (PAGES - 2) * PAGE_SIZE,
    });
    checkPages(file);
    await expect(file.retryLoad()).rejects.toMatchObject({ code: "EIO" });
    faults.disarm();
    await file.retryLoad();
    checkPages(file);
    expect(file.loadStats()).toMatchObject({
      failedBytes: 0,
      loadedBytes: PAGES * PAGE_SIZE,
      error: null,
    });
  });

  test("an unreadable page and a damaged one have their own errors, in any order", async () => {
    const first = 5 * PAGES_PER_UNIT;
    const pageAt = (i: number) =>
      new FileRange((first + i) * PAGE_SIZE, (first + i + 1) * PAGE_SIZE);
    const fd = openSync(pagesFiles()[0]!, "r+");
    writeSync(fd, new Uint8Array([1, 2, 3]), 0, 3, (first + 20) * PAGE_SIZE + 100);
    closeSync(fd);
    for (const order of [
      [10, 20],
      [20, 10],
    ]) {
      faults.arm({
        action: "Fail",
        calls: READS,
        value: EIO,
        filePages: [first + 10, first + 11],
        onlyPages: true,
      });
      using file = await load();
      for (const i of order)
        await file.awaitLoad(pageAt(i)).catch((error) => expect(error).toBeInstanceOf(Error));
      await answers(file);
      await expect(file.awaitLoad(pageAt(10))).rejects.toMatchObject({ code: "EIO" });
      await expect(file.awaitLoad(pageAt(20))).rejects.toMatchObject({
        code: "ERR_CORRUPT_CHECKPOINT",
      });
      expect(file.loadStats().failedBytes).toBe(2 * PAGE_SIZE);
      // What was damaged and can now not be read is a read error.
      faults.arm({
        action: "Fail",
        calls: READS,
        value: EIO,
        filePages: [first + 20, first + 21],
        onlyPages: true,
      });
      await expect(file.retryLoad(pageAt(20))).rejects.toMatchObject({ code: "EIO" });
      await file.retryLoad(pageAt(10));
      faults.disarm();
      await expect(file.retryLoad()).rejects.toMatchObject({ code: "ERR_CORRUPT_CHECKPOINT" });
      checkPages(file);
    }
  });

  test("an unreadable unit is given up after some attempts; the others load", async () => {
    const filePages = [5 * PAGES_PER_UNIT, 6 * PAGES_PER_UNIT] as const;
    faults.arm({ action: "Fail", calls: READS, value: EIO, filePages, onlyPages: true });
    using file = await load();
    const answered = await answers(file);
    expect(answered.flatMap((answer, unit) => (answer === "loaded" ? [] : [unit]))).toEqual([5]);
    expect(file.loadStats().failedBytes).toBe(HUGE_PAGE_SIZE);
    expect(faults.hits).toBeLessThan(150);
    checkPages(file);
  });

  test("pages that failed can be dropped, and used anew", async () => {
    faults.arm({ action: "Fail", calls: READS, value: EIO, onlyPages: true });
    using file = await load();
    await answers(file);
    faults.disarm();
    file.decommit(units(0, 1));
    expect(file.view(units(0, 1)).every((byte) => byte === 0)).toBe(true);
    file.decRef(units(1, 8));
    await file.released();
    expect(file.loadStats()).toMatchObject({ failedBytes: 0, error: null });
    const again = file.allocate(7 * HUGE_PAGE_SIZE);
    expect(file.view(again).every((byte) => byte === 0)).toBe(true);
    await file.awaitLoad();
    await file.saveTo(join(directory, "other"));
  });

  test("the file can grow while it loads, and after a failure", async () => {
    faults.arm({ action: "Fail", calls: READS, value: EIO, from: 3, onlyPages: true });
    using file = await load();
    for (const settled of [false, true]) {
      if (settled) await answers(file);
      // Larger than what is free: in a chunk that the checkpoint did not have.
      const range = file.allocate(CHUNK_SIZE);
      const last = { start: range.end - PAGE_SIZE, end: range.end };
      expect(file.isLoaded(last)).toBe(true);
      file.view(last).fill(1);
      file.awaitLoadSync(last);
      await file.awaitLoad(last);
      await file.retryLoad(last);
      file.decommit(last);
      file.decRef(range);
      await file.released();
    }
  });

  test("short reads are finished", async () => {
    faults.arm({ action: "Shorten", calls: READS, value: 12_345, onlyPages: true });
    using file = await load();
    expect(await answers(file)).toEqual(new Array(8).fill("loaded"));
    expect(faults.hits).toBeGreaterThan(8);
    checkPages(file);
  });

  test("the file seems to end early: CorruptCheckpointError names the offset", async () => {
    faults.arm({ action: "Shorten", calls: READS, value: 0, from: 0, until: 1, onlyPages: true });
    using file = await load();
    const failed = (await answers(file)).filter((answer) => answer !== "loaded");
    expect(failed.length).toBe(1);
    expect(failed[0]).toBeInstanceOf(CorruptCheckpointError);
    expect((failed[0] as CorruptCheckpointError).offset! % PAGE_SIZE).toBe(0);
    await file.retryLoad();
    checkPages(file);
  });

  test("the file is truncated while it loads", async () => {
    faults.arm({ action: "Delay", calls: READS, value: 5, onlyPages: true });
    using file = await load();
    for (const path of pagesFiles()) truncateSync(path, HUGE_PAGE_SIZE + PAGE_SIZE / 2);
    const answered = await answers(file);
    expect(answered.filter((answer) => answer !== "loaded").length).toBeGreaterThan(0);
    for (const answer of answered)
      if (answer !== "loaded") expect(answer).toBeInstanceOf(CorruptCheckpointError);
    checkPages(file);
  });

  test("files that are deleted or replaced while they load stay readable", async () => {
    for (const replace of [false, true]) {
      faults.arm({ action: "Delay", calls: READS, value: 5, onlyPages: true });
      using file = await load();
      for (const path of pagesFiles()) {
        if (replace) {
          writeFileSync(`${path}.new`, new Uint8Array(PAGES * PAGE_SIZE));
          renameSync(`${path}.new`, path);
        } else rmSync(path);
      }
      expect(await answers(file)).toEqual(new Array(8).fill("loaded"));
      checkPages(file);
      file.destroy();
      faults.disarm();
      await saveStamped(checkpoint, PAGES, 1);
    }
  });

  test("a file overwritten in place while it loads is refused block by block", async () => {
    faults.arm({ action: "Delay", calls: READS, value: 5, onlyPages: true });
    using file = await load();
    for (const path of pagesFiles())
      writeFileSync(path, new Uint8Array(PAGES * PAGE_SIZE), { flag: "r+" });
    for (const answer of await answers(file)) {
      if (answer !== "loaded") expect(answer).toBeInstanceOf(CorruptCheckpointError);
    }
    checkPages(file);
  });

  test("the abort signal: every waiter gets its reason, and the load can go on later", async () => {
    faults.arm({ action: "Delay", calls: READS, value: 20, onlyPages: true });
    const controller = new AbortController();
    using file = await MemoryFile.loadFrom(checkpoint, {
      background: true,
      queue,
      signal: controller.signal,
    });
    const waits = answers(file);
    controller.abort(new Error("enough"));
    const answered = await waits;
    expect(answered.some((answer) => answer !== "loaded")).toBe(true);
    for (const answer of answered) if (answer !== "loaded") expect(answer.message).toBe("enough");
    expect(file.isLoading).toBe(false);
    expect(file.loadStats().error?.message).toBe("enough");
    await expect(file.awaitLoad()).rejects.toThrow("enough");
    expect(() => file.awaitLoadSync()).toThrow("enough");
    checkPages(file);
    faults.disarm();
    await Promise.all([file.retryLoad(), file.retryLoad(units(2, 3))]);
    expect(await answers(file)).toEqual(new Array(8).fill("loaded"));
    expect(file.loadStats()).toMatchObject({ error: null, isLoading: false });
    checkPages(file);
  });

  test("destroy while it loads: every waiter hears of it, memory and descriptors go", async () => {
    const before = namedDescriptors();
    faults.arm({ action: "Delay", calls: READS, value: 20, onlyPages: true });
    const file = await load();
    const waits = askAll(file);
    file.destroy();
    for (const answer of await waits)
      if (answer !== "loaded") expect(answer).toBeInstanceOf(DestroyedError);
    faults.disarm();
    await gone(before);
  });

  test("destroy after a failure, and while it is being tried again", async () => {
    const before = namedDescriptors();
    faults.arm({ action: "Fail", calls: READS, value: EIO, onlyPages: true });
    const failed = await load();
    await answers(failed);
    failed.destroy();
    const retried = await load();
    await answers(retried);
    faults.arm({ action: "Delay", calls: READS, value: 10, onlyPages: true });
    const again = retried.retryLoad();
    retried.destroy();
    await expect(again).rejects.toBeInstanceOf(DestroyedError);
    faults.disarm();
    await gone(before);
  });
});

/** Nothing of the files above is open or mapped any more. */
async function gone(before: readonly string[]): Promise<void> {
  await expectDescriptors(before);
  for (let i = 0; i < 200 && readFileSync("/proc/self/maps", "utf8").includes("memfd:pgalloc"); i++)
    await Bun.sleep(5);
  expect(readFileSync("/proc/self/maps", "utf8")).not.toContain("memfd:pgalloc");
}

// Waiters of two units: one they would read themselves, while the Workers start.
describe.each(QUEUES.filter((queue) => queue !== "inline"))(
  "queue %s: a loading Worker dies",
  (queue) => {
    test("in the middle of its work: what it had claimed is read by others", async () => {
      faults.arm({ action: "ExitThread", calls: READS, from: 1, until: 3, onlyPages: true });
      using file = await MemoryFile.loadFrom(checkpoint, { background: true, queue });
      expect(await answers(file, 2)).toEqual(new Array(4).fill("loaded"));
      expect(faults.hits).toBe(2);
      checkPages(file);
    });

    test("again and again: every waiter is told, and the load can be tried again", async () => {
      faults.arm({ action: "ExitThread", calls: READS, onlyPages: true });
      using file = await MemoryFile.loadFrom(checkpoint, { background: true, queue });
      for (const answer of await answers(file, 2))
        expect(answer).toMatchObject({ code: "ERR_THREAD_DIED" });
      expect(file.loadStats().error).toMatchObject({ code: "ERR_THREAD_DIED" });
      faults.disarm();
      await file.retryLoad();
      checkPages(file);
      expect(file.isLoaded(units(0, 8))).toBe(true);
    });
  },
);

test("a failed foreground load leaves nothing behind", async () => {
  const before = namedDescriptors();
  faults.arm({
    action: "Fail",
    calls: READS,
    value: EIO,
    filePages: [3000, 3001],
    onlyPages: true,
  });
  await expect(MemoryFile.loadFrom(checkpoint)).rejects.toMatchObject({ code: "EIO" });
  faults.disarm();
  await gone(before);
  expect(await checkStamped(checkpoint, PAGES)).toBe(1);
});

const loads = {
  "in the background": () => MemoryFile.loadFrom(checkpoint, { background: true }),
  "in the foreground": () => MemoryFile.loadFrom(checkpoint),
  "of gVisor's format": () => importFrom(join(directory, "gvisor"), { background: true }),
};
test.each(Object.entries(loads))(
  "each call of a load %s fails in turn: an error with a code, and nothing stays open",
  async (_, load) => {
    using exported = stampedFile(PAGES, 1);
    await exportTo(exported, join(directory, "gvisor"));
    const before = namedDescriptors();
    const opening = [
      "open",
      "openat",
      "getdents",
      "fstat",
      "pread",
      "memfd_create",
      "mmap",
      "fcntl",
      "ftruncate",
      "flock",
    ] as const;
    let failures = 0;
    for (let at = 0; ; at++) {
      faults.arm({ action: "Fail", calls: opening, value: EIO, from: at, until: at + 1 });
      const failure = await load().then(
        async (file) => {
          const failed = await file.awaitLoad().then(
            () => undefined,
            (error) => error,
          );
          file.destroy();
          return failed;
        },
        (error) => error,
      );
      const { hits } = faults;
      faults.disarm();
      await expectDescriptors(before);
      if (hits === 0) break;
      if (failure !== undefined)
        expect(failure).toMatchObject({ name: "SyscallError", code: "EIO" });
      if (failure !== undefined) failures++;
    }
    expect(failures).toBeGreaterThan(8);
  },
);
