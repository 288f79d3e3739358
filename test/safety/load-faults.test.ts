/**
 * Faults while a checkpoint loads: every waiter gets data or an error, nothing hangs, nothing
 * leaks, and failed pages can be inspected and tried again. Faults are injected in every thread
 * (support/fault-hook.ts).
 */
import { describe, expect, test } from "bun:test";
import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import {
  CHUNK_SIZE,
  FileRange,
  HUGE_PAGE_SIZE,
  MemoryFile,
  PAGE_SIZE,
  SyscallError,
} from "../../src/index.ts";
import { exportTo, importFrom } from "../../src/gvisor/index.ts";
import { expectDescriptors, namedDescriptors } from "./support/descriptors.ts";
import { checkStamped, stampedFile } from "./support/stamped.ts";
import {
  PAGES_PER_UNIT,
  PAGES,
  READS,
  noUring,
  QUEUES,
  EIO,
  faults,
  directory,
  checkpoint,
  pagesFiles,
  units,
  answers,
  checkPages,
  gone,
  openNow,
  useLoadFaults,
} from "./support/load-faults.ts";

useLoadFaults();

if (noUring !== null) test.skip(`queue uring (not available here: ${noUring})`, () => {});

describe.each(QUEUES)("queue %s", (queue) => {
  const load = () => MemoryFile.loadFrom(checkpoint, { background: true, queue });

  test("awaitLoad rejects if every read fails with EIO; retryLoad loads everything", async () => {
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
    // Later waiters get the same error. A second attempt on a disk that is still broken fails
    // again.
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
      // A damaged page that can now not be read is a read error.
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

  test("an unreadable unit fails after some attempts; the others load", async () => {
    const filePages = [5 * PAGES_PER_UNIT, 6 * PAGES_PER_UNIT] as const;
    faults.arm({ action: "Fail", calls: READS, value: EIO, filePages, onlyPages: true });
    using file = await load();
    const answered = await answers(file);
    expect(answered.flatMap((answer, unit) => (answer === "loaded" ? [] : [unit]))).toEqual([5]);
    expect(file.loadStats().failedBytes).toBe(HUGE_PAGE_SIZE);
    expect(faults.hits).toBeLessThan(150);
    checkPages(file);
  });

  test("pages that failed can be dropped, and used again", async () => {
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
      // Larger than the free space: in a chunk that the checkpoint did not have.
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
});

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

    test("repeatedly: every waiter is told, and the load can be tried again", async () => {
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
  const before = openNow();
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
