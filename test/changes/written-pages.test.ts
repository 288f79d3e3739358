/**
 * Behaviour of the kernel's tracking alone: huge pages, replaced mappings, descriptors, refusal.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  MADV_COLLAPSE,
  MADV_POPULATE_WRITE,
  mapFileAt,
  setFaultHook,
  trackingUnavailable,
  tryAdvise,
} from "../../ffi/index.ts";
import { coreOf } from "../../src/file/memory-file.ts";
import { baseName } from "../../src/control/base-name.ts";
import { CHUNK_SIZE, FileRange, MemoryFile, HUGE_PAGE_SIZE, PAGE_SIZE } from "../../src/index.ts";
import { TrackedFile } from "./support/tracked-file.ts";

const PAGES = HUGE_PAGE_SIZE / PAGE_SIZE;
const isTracked = trackingUnavailable() === null;

/** KiB of huge pages that the mapping at `address` has. */
function hugeKiB(address: number): number {
  const smaps = readFileSync("/proc/self/smaps", "latin1");
  const entry = smaps.slice(smaps.indexOf(`${address.toString(16)}-`));
  return Number(/ShmemPmdMapped:\s+(\d+) kB/.exec(entry)![1]);
}

describe.skipIf(!isTracked)("a file with huge pages", () => {
  let tracked: TrackedFile;
  let base: number;

  beforeEach(() => {
    tracked = new TrackedFile("userfaultfd", { name: "huge" });
    const range = tracked.file.allocate(4 * HUGE_PAGE_SIZE);
    expect(range.start).toBe(0);
    base = tracked.core.mapping.base;
    for (let unit = 0; unit < 4; unit++) {
      const address = base + unit * HUGE_PAGE_SIZE;
      tryAdvise(address, PAGE_SIZE, MADV_POPULATE_WRITE);
      expect(tryAdvise(address, HUGE_PAGE_SIZE, MADV_COLLAPSE)).toBe(0);
    }
    tracked.file.view(range).fill(1);
    tracked.take();
  });
  afterEach(() => tracked.file.destroy());

  test("keeps a huge page without writes, and reports it as a whole at first", () => {
    expect(hugeKiB(base)).toBe(8192);
    tracked.write(PAGES + 5);
    expect(tracked.take()).toEqual(Array.from({ length: PAGES }, (_, i) => PAGES + i));
    expect(hugeKiB(base)).toBe(8192);
    expect(tracked.take()).toEqual([]);
  });

  test("splits a huge page in which each take finds writes, and then reports single pages", () => {
    tracked.write(PAGES + 5);
    expect(tracked.take()).toHaveLength(PAGES);
    tracked.write(PAGES + 6);
    expect(tracked.take()).toHaveLength(PAGES);
    expect(hugeKiB(base)).toBe(6144);
    tracked.write(PAGES + 7);
    tracked.write(PAGES + 300);
    expect(tracked.take()).toEqual([PAGES + 7, PAGES + 300]);
    expect(tracked.core.changes.counters().splitUnits).toBe(1);
  });

  test("joins a split unit again if no take has reported it for long", () => {
    for (let i = 0; i < 2; i++) {
      tracked.write(9);
      tracked.take();
    }
    expect(hugeKiB(base)).toBe(6144);
    for (let i = 0; i < 30; i++) tracked.take();
    tracked.core.changes.end();
    expect(hugeKiB(base)).toBe(8192);
    expect(tracked.core.changes.counters().joinedUnits).toBe(1);
    tracked.core.changes.tryBegin();
    tracked.write(9, 3);
    expect(tracked.take()).toContain(9);
  });

  test("keeps small pages if a part of a split unit has no memory", () => {
    for (let i = 0; i < 2; i++) {
      tracked.write(9);
      tracked.take();
    }
    tracked.file.decommit(new FileRange(40 * PAGE_SIZE, 50 * PAGE_SIZE));
    const before = tracked.file.totalUsageBytes;
    for (let i = 0; i < 30; i++) tracked.take();
    tracked.core.changes.end();
    expect(tracked.file.totalUsageBytes).toBe(before);
    expect(hugeKiB(base)).toBe(6144);
  });

  test("reports writes to a huge page in which a hole was punched", () => {
    tracked.write(PAGES + 5);
    tracked.file.decommit(new FileRange(HUGE_PAGE_SIZE + 40 * PAGE_SIZE, 2 * HUGE_PAGE_SIZE));
    const reported = tracked.take();
    expect(reported).toContain(PAGES + 5);
    expect(reported).toContain(PAGES + 40);
  });
});

describe.skipIf(!isTracked)("WrittenPages", () => {
  test("take tracks memory that was mapped over a tracked part", () => {
    using tracked = new TrackedFile("userfaultfd");
    const first = tracked.fill(1024);
    tracked.take();
    const { base, fd } = tracked.core.mapping;
    tracked.write(first + 900);
    mapFileAt(base + 512 * PAGE_SIZE, 64 * PAGE_SIZE, fd, 512 * PAGE_SIZE);
    tracked.write(520);
    const reported = tracked.take();
    expect(reported).toContain(520);
    expect(reported).toContain(first + 900);
    tracked.write(530);
    expect(tracked.take()).toEqual([530]);
  });

  test("take returns the pages of several scans", () => {
    using tracked = new TrackedFile("userfaultfd");
    const first = tracked.fill(20_000);
    tracked.take();
    const written = Array.from({ length: 9000 }, (_, i) => first + 2 * i);
    for (const page of written) tracked.write(page);
    expect(tracked.take()).toEqual(written);
  });

  test("destroy closes its descriptors", () => {
    const count = () => readdirSync("/proc/self/fd").length;
    const before = count();
    const tracked = new TrackedFile("userfaultfd");
    tracked.fill(1);
    tracked.take();
    expect(count()).toBeGreaterThan(before);
    tracked.file.destroy();
    expect(count()).toBe(before);
  });
});

describe.skipIf(!isTracked)("Changes", () => {
  const changed = (tracked: TrackedFile) => tracked.core.changes.changed().pages;
  const [a, b, c] = [baseName("1", "a"), baseName("1", "b"), baseName("2", "a")];

  test("changed collects takes until setBase names the next base", () => {
    using tracked = new TrackedFile("userfaultfd");
    const first = tracked.fill(10);
    const { changes } = tracked.core;
    expect(changes.knowsBase(a)).toBe(false);
    tracked.take();
    changes.setBase(a);
    expect(changes.knowsBase(a)).toBe(true);
    expect(changes.knowsBase(b)).toBe(false);
    tracked.write(first);
    tracked.take();
    tracked.write(first + 1);
    tracked.take();
    expect(changed(tracked)).toBe(2);
    changes.end();
    expect(changes.tryBegin()).toBe(true);
    expect(changes.knowsBase(a)).toBe(true);
    expect(changed(tracked)).toBe(2);
    changes.setBase(c);
    expect(changed(tracked)).toBe(0);
  });

  test("tryBegin is false while another save of the file is under way", () => {
    using tracked = new TrackedFile("userfaultfd");
    expect(tracked.core.changes.tryBegin()).toBe(false);
    tracked.core.changes.end();
    expect(tracked.core.changes.tryBegin()).toBe(true);
  });

  test("mark does no work before tracking begins", () => {
    using tracked = new TrackedFile("userfaultfd");
    tracked.file.allocate(CHUNK_SIZE);
    expect(tracked.core.changes.counters().markedPages).toBe(0);
  });
});

describe("trackingUnavailable", () => {
  const script = new URL("./support/without-userfaultfd.ts", import.meta.url).pathname;
  const run = (command: string[]) => {
    const { stdout, stderr, exitCode } = Bun.spawnSync(command);
    if (exitCode !== 0) throw new Error(stderr.toString());
    return JSON.parse(stdout.toString()) as {
      why: object | null;
      detection: string;
      pages: number[];
    };
  };

  test("reports a seccomp filter, and saves compare hashes then", () => {
    const directory = mkdtempSync(join(tmpdir(), "pgalloc-seccomp-"));
    try {
      const answer = run([process.execPath, script, "refused", directory]);
      expect(answer).toMatchObject({
        why: { syscall: "userfaultfd", code: "EPERM" },
        detections: ["hashes", "hashes"],
        isWhole: true,
      });
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  test.skipIf(!isTracked || process.getuid!() !== 0)("is null for `nobody`, too", () => {
    const asNobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    const { why } = run([...asNobody, process.execPath, script, "allowed"]);
    expect(why).toBeNull();
  });
});

test.skipIf(!isTracked)(
  "activate leaves nothing open when a call fails, and works at the next call",
  () => {
    const file = MemoryFile.create();
    const { changes } = coreOf(file);
    const open = readdirSync("/proc/self/fd").length;
    trackingUnavailable();
    for (const failing of ["userfaultfd", "open", "mmap"]) {
      setFaultHook((syscall) => (syscall === failing ? { errno: 24 } : undefined));
      expect(() => changes.activate()).toThrow("EMFILE");
      setFaultHook(undefined);
      expect(readdirSync("/proc/self/fd").length).toBe(open);
      expect(changes.isActive).toBe(false);
    }
    changes.activate();
    expect(changes.isActive).toBe(true);
    file.destroy();
  },
);
