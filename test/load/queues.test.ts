/**
 * A restore over every queue: the same bytes, few and large reads, huge pages if they are faster,
 * and right statistics.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  closeFile,
  dropPageCache,
  errnoNumber,
  openFile,
  reopenDirect,
  residentFraction,
  uringUnavailable,
} from "../../ffi/index.ts";
import { makeHuge } from "../../src/load/huge-pages.ts";
import {
  FileRange,
  HUGE_PAGE_SIZE,
  type LoadQueue,
  MemoryFile,
  PAGE_SIZE,
} from "../../src/index.ts";
import { INLINE_READ_BYTES } from "../../src/source/file-source.ts";
import { coreOf } from "../../src/file/memory-file.ts";
import type { Faults } from "../safety/support/fault-control.ts";
import { beginFaults } from "../safety/support/in-process.ts";

const PAGES_PER_UNIT = HUGE_PAGE_SIZE / PAGE_SIZE;
const UNITS = 12;
const PAGES = UNITS * PAGES_PER_UNIT;

/** True if a page of the image is not zero. */
const images = {
  dense: () => true,
  /** Every fourth page is zero: extents of three pages. */
  fragmented: (page: number) => page % 4 !== 3,
  /** One page in sixteen. */
  sparse: (page: number) => page % 16 === 5,
} satisfies Record<string, (page: number) => boolean>;
type Image = keyof typeof images;

const noUring = uringUnavailable();
const queues: { queue: LoadQueue; title: string; skip: boolean }[] = [
  { queue: "workers", title: "workers", skip: false },
  { queue: "inline", title: "inline", skip: false },
  {
    queue: "uring",
    title: noUring === null ? "uring" : `uring (not available here: ${noUring})`,
    skip: noUring !== null,
  },
  { queue: "auto", title: "auto", skip: false },
];

let root: string;
let range: FileRange;
let collapses: boolean;
let faults: Faults;
let endFaults: () => Promise<void>;

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "pgalloc-load-"));
  for (const [name, holds] of Object.entries(images)) {
    using file = MemoryFile.create();
    range = file.allocate(PAGES * PAGE_SIZE);
    const words = file.view(range, Uint32Array);
    for (let page = 0; page < PAGES; page++)
      if (holds(page)) words.fill(stamp(page), page * 1024, (page + 1) * 1024);
    await file.saveTo(join(root, name));
  }
  using probe = MemoryFile.create();
  const block = probe.allocate(HUGE_PAGE_SIZE);
  collapses = makeHuge(coreOf(probe).mapping.base + block.start);
  ({ faults, end: endFaults } = await beginFaults());
});
afterAll(async () => {
  await endFaults();
  rmSync(root, { recursive: true });
});

const stamp = (page: number) => Math.imul(page + 1, 0x9e3779b1) | 1;

/** The pages of the image whose contents differ from the saved ones. */
function wrongPages(file: MemoryFile, image: Image): number[] {
  const words = file.view(range, Uint32Array);
  const wrong: number[] = [];
  for (let page = 0; page < PAGES; page++) {
    const want = images[image](page) ? stamp(page) >>> 0 : 0;
    if (!words.subarray(page * 1024, (page + 1) * 1024).every((word) => word === want))
      wrong.push(page);
  }
  return wrong;
}

/** Bytes of the file's memory that the kernel maps by huge pages. */
function mappedHugeBytes(file: MemoryFile): number {
  const base = coreOf(file).mapping.base;
  const entries = readFileSync("/proc/self/smaps", "utf8").split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const own = entries.filter((entry) => {
    const start = Number.parseInt(entry, 16);
    return start >= base && start < base + file.totalSizeBytes;
  });
  return own.reduce(
    (sum, entry) => sum + Number(/ShmemPmdMapped:\s+(\d+) kB/.exec(entry)?.[1] ?? 0) * 1024,
    0,
  );
}

function pagesFile(image: Image): string {
  const name = readdirSync(join(root, image)).find((entry) => entry.startsWith("pages"))!;
  return join(root, image, name);
}

for (const { queue, title, skip } of queues) {
  describe.skipIf(skip)(`queue ${title}`, () => {
    for (const image of Object.keys(images) as Image[]) {
      test(`${image}: restores the same bytes with few reads`, async () => {
        using file = await MemoryFile.loadFrom(join(root, image), { queue });
        const contents =
          Array.from({ length: PAGES }, (_, page) => page).filter(images[image]).length * PAGE_SIZE;
        const stats = file.loadStats();
        expect(stats).toMatchObject({
          totalBytes: contents,
          loadedBytes: contents,
          failedBytes: 0,
          demandBytes: 0,
          error: null,
        });
        expect(stats.hugeBytes + stats.smallBytes).toBe(contents);
        // A unit is one read, or one for each piece that is checked at once, for any number of
        // extents.
        const readBytes = stats.queue === "uring" ? HUGE_PAGE_SIZE : INLINE_READ_BYTES;
        expect(stats.readCalls).toBe(UNITS * Math.ceil(contents / UNITS / readBytes));
        expect(stats.readsInFlightMax).toBeGreaterThanOrEqual(1);
        expect(stats.readsInFlightMax).toBeLessThanOrEqual(queue === "uring" ? 8 : 1);
        if (queue !== "auto") expect(stats.queue).toBe(queue);
        expect(wrongPages(file, image)).toEqual([]);
      });
    }

    test("makes nearly full units huge pages, as the kernel confirms", async () => {
      if (!collapses) return console.warn("skipped: this kernel refuses MADV_COLLAPSE");
      for (const image of Object.keys(images) as Image[]) {
        using file = await MemoryFile.loadFrom(join(root, image), { queue });
        const { hugeBytes, loadedBytes } = file.loadStats();
        expect(hugeBytes).toBe(image === "sparse" ? 0 : loadedBytes);
        // Read before anything is touched here: small pages mapped by a touch would not be huge
        // anyway.
        expect(mappedHugeBytes(file)).toBe(image === "sparse" ? 0 : UNITS * HUGE_PAGE_SIZE);
        expect(file.totalUsageBytes).toBe(
          image === "sparse" ? loadedBytes : UNITS * HUGE_PAGE_SIZE,
        );
      }
    });

    test("loads an awaited range before the rest", async () => {
      faults.arm({
        action: "Delay",
        calls: ["pread", "preadv", "uring_read", "uring_readv"],
        value: 20,
        onlyPages: true,
      });
      using file = await MemoryFile.loadFrom(join(root, "fragmented"), { background: true, queue });
      const last = new FileRange(range.end - 2 * PAGE_SIZE, range.end - PAGE_SIZE);
      await file.awaitLoad(last);
      expect(file.isLoaded(last)).toBe(true);
      expect(file.isLoaded(range)).toBe(false);
      expect(file.loadStats().demandBytes).toBe(PAGE_SIZE);
      faults.disarm();
      await file.awaitLoad();
      expect(wrongPages(file, "fragmented")).toEqual([]);
    });
  });
}

describe("contents outside of the page cache", () => {
  /** Drops a file from the page cache. False if that is not possible: a memory file system. */
  function makeCold(path: string): boolean {
    const TMPFS = 0x01021994;
    if (statfsSync(path).type === TMPFS) return false;
    const fd = openFile(path, 0);
    try {
      dropPageCache(fd);
      return residentFraction(fd, 64) < 0.5;
    } finally {
      closeFile(fd);
    }
  }

  function isDirectPossible(path: string): boolean {
    const fd = openFile(path, 0);
    const direct = reopenDirect(fd);
    closeFile(fd);
    if (direct >= 0) closeFile(direct);
    return direct >= 0;
  }

  test("are read directly over io_uring, and cached ones by Workers", async () => {
    for (const image of ["dense", "fragmented"] as const) {
      const path = pagesFile(image);
      if (!makeCold(path))
        return console.warn("skipped: this file system cannot be dropped from the page cache");
      const isUring = noUring === null && isDirectPossible(path);
      const wants = isUring
        ? { queue: "uring", isDirect: true }
        : { queue: "workers", isDirect: false };
      using cold = await MemoryFile.loadFrom(join(root, image));
      expect(cold.loadStats()).toMatchObject(wants);
      expect(wrongPages(cold, image)).toEqual([]);
      readFileSync(path);
      using hot = await MemoryFile.loadFrom(join(root, image));
      expect(hot.loadStats()).toMatchObject({ queue: "workers", isDirect: false });
    }
  });

  test.skipIf(noUring !== null)(
    "are read through the page cache if the file system refuses direct reads",
    async () => {
      // Sparse: single pages, which cannot be read again in halves.
      for (const image of ["dense", "sparse"] as const) {
        const path = pagesFile(image);
        if (!makeCold(path) || !isDirectPossible(path))
          return console.warn("skipped: no O_DIRECT on this file system");
        const calls = ["uring_read", "uring_readv"] as const;
        // Two are on their way before the first is answered.
        faults.arm({
          action: "Fail",
          calls,
          value: errnoNumber("EINVAL"),
          until: 2,
          onlyPages: true,
        });
        using file = await MemoryFile.loadFrom(join(root, image), { queue: "uring" });
        expect(faults.hits).toBe(2);
        faults.disarm();
        expect(wrongPages(file, image)).toEqual([]);
      }
    },
  );
});

test("loadFrom over uring throws the reason without io_uring, and leaves nothing open", () => {
  const program = `
    import { readdirSync } from "node:fs";
    import { errnoNumber, setFaultHook } from "${import.meta.dir}/../../ffi/index.ts";
    import { MemoryFile } from "${import.meta.dir}/../../src/index.ts";
    setFaultHook((name) =>
      name === "io_uring_setup" ? { errno: errnoNumber("ENOSYS") } : undefined);
    const before = readdirSync("/proc/self/fd").length;
    try { await MemoryFile.loadFrom(${JSON.stringify(join(root, "dense"))}, { queue: "uring" }); }
    catch (error) {
      const opened = readdirSync("/proc/self/fd").length - before;
      console.log(error.code, error.reason.includes("ENOSYS"), opened);
    }`;
  const { stdout } = Bun.spawnSync([process.execPath, "-e", program], {
    stderr: "inherit",
    timeout: 20_000,
  });
  expect(stdout.toString()).toBe("ERR_URING_UNAVAILABLE true 0\n");
});
