/** Faults of a mapped restore: pages that cannot be read are errors, and no thread is lost. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errnoNumber } from "../../ffi/index.ts";
import { CorruptCheckpointError, HUGE_PAGE_SIZE, MemoryFile } from "../../src/index.ts";
import type { Faults } from "../safety/support/fault-control.ts";
import { beginFaults } from "../safety/support/in-process.ts";
import { all, PAGES, pages, saveDense, wrongPages } from "./support/mapped-image.ts";

let root: string;
beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "pgalloc-mapped-faults-"));
  await saveDense(join(root, "dense"));
});
afterAll(() => rmSync(root, { recursive: true }));

let faults: Faults;
let endFaults: () => Promise<void>;
beforeAll(async () => {
  ({ faults, end: endFaults } = await beginFaults());
});
afterAll(() => endFaults());

test("awaitLoad rejects for pages that cannot be read, and retryLoad loads them", async () => {
  faults.arm({ action: "Fail", calls: ["madvise"], value: errnoNumber("EIO") });
  using file = await MemoryFile.loadFrom(join(root, "dense"), { mapped: true, background: true });
  await expect(file.awaitLoad()).rejects.toMatchObject({ code: "EIO", syscall: "madvise" });
  faults.disarm();
  while (file.isLoading) await Bun.sleep(1);
  await file.retryLoad();
  expect(wrongPages(file)).toEqual([]);
  expect(file.loadStats()).toMatchObject({ failedBytes: 0, mappedBytes: all.end });
});

test("a page file that was cut off is an error, not a signal", async () => {
  const place = join(root, "cut");
  using source = await MemoryFile.loadFrom(join(root, "dense"));
  await source.saveTo(place);
  // Loading threads wait at their first call, so that the file is cut before it is populated.
  faults.arm({ action: "Delay", calls: ["madvise"], value: 50 });
  using file = await MemoryFile.loadFrom(place, { mapped: true, background: true });
  const name = readdirSync(place).find((entry) => entry.startsWith("pages-"))!;
  truncateSync(join(place, name), HUGE_PAGE_SIZE);
  await expect(file.awaitLoad(pages(PAGES - 1))).rejects.toThrow("Page file ends before");
  await expect(file.awaitLoad(pages(PAGES - 1))).rejects.toThrow(CorruptCheckpointError);
  faults.disarm();
  await file.awaitLoad().catch((error) => expect(error).toBeInstanceOf(Error));
  expect(file.isLoaded(pages(PAGES - 1))).toBe(false);
});

test("loadFrom copies the pages if the kernel refuses a mapping", async () => {
  const options = { mapped: true, queue: "inline" } as const;
  for (const code of ["ENOMEM", "ENODEV"]) {
    let copied = 0;
    for (let at = 0; ; at++) {
      const value = errnoNumber(code);
      faults.arm({ action: "Fail", calls: ["mmap"], value, from: at, until: at + 1 });
      const file = await MemoryFile.loadFrom(join(root, "dense"), options).catch((error: unknown) =>
        expect(error).toMatchObject({ code }),
      );
      const { hits } = faults;
      faults.disarm();
      if (file instanceof MemoryFile) {
        expect(wrongPages(file)).toEqual([]);
        if (file.loadStats().copiedBytes === all.end) copied++;
        file.destroy();
      }
      if (hits === 0) break;
    }
    expect(copied).toBe(1);
  }
});

test("a loading thread that dies leaves its pages to others", async () => {
  faults.arm({ action: "ExitThread", calls: ["madvise"], from: 2, until: 4 });
  using file = await MemoryFile.loadFrom(join(root, "dense"), { mapped: true, background: true });
  await file.awaitLoad();
  faults.disarm();
  expect(wrongPages(file)).toEqual([]);
});
