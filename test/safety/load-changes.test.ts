/**
 * Changes to a checkpoint or its load while it loads: files that end early, are truncated, replaced
 * or overwritten; an abort; a destroy. Faults are injected in every thread.
 */
import { describe, expect, test } from "bun:test";
import { renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import {
  CorruptCheckpointError,
  DestroyedError,
  HUGE_PAGE_SIZE,
  MemoryFile,
  PAGE_SIZE,
} from "../../src/index.ts";
import { saveStamped } from "./support/stamped.ts";
import {
  PAGES,
  READS,
  QUEUES,
  EIO,
  faults,
  checkpoint,
  pagesFiles,
  units,
  answers,
  askAll,
  checkPages,
  gone,
  openNow,
  useLoadFaults,
} from "./support/load-faults.ts";

useLoadFaults();

describe.each(QUEUES)("queue %s", (queue) => {
  const load = () => MemoryFile.loadFrom(checkpoint, { background: true, queue });

  test("a file that seems to end early is a CorruptCheckpointError with the offset", async () => {
    faults.arm({ action: "Shorten", calls: READS, value: 0, from: 0, until: 1, onlyPages: true });
    using file = await load();
    const failed = (await answers(file)).filter((answer) => answer !== "loaded");
    expect(failed.length).toBe(1);
    expect(failed[0]).toBeInstanceOf(CorruptCheckpointError);
    expect((failed[0] as CorruptCheckpointError).offset! % PAGE_SIZE).toBe(0);
    await file.retryLoad();
    checkPages(file);
  });

  test("a file that is truncated while it loads fails the waits for its end", async () => {
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

  test("an abort gives every waiter its reason, and the load can continue later", async () => {
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

  test("destroy gives every waiter an error, and frees memory and descriptors", async () => {
    const before = openNow();
    faults.arm({ action: "Delay", calls: READS, value: 20, onlyPages: true });
    const file = await load();
    const waits = askAll(file);
    file.destroy();
    for (const answer of await waits)
      if (answer !== "loaded") expect(answer).toBeInstanceOf(DestroyedError);
    faults.disarm();
    await gone(before);
  });

  test("destroy works after a failure, and while it is being tried again", async () => {
    const before = openNow();
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
