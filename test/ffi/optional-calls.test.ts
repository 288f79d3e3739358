/**
 * Optional system calls, each refused as by a kernel, a seccomp filter or a file system: all work
 * of a program succeeds without them. docs/decisions/system-calls.md lists all calls.
 */
import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errnoNumber, setFaultHook } from "../../ffi/index.ts";
import { type AllocationMode, HUGE_PAGE_SIZE, MemoryFile, PAGE_SIZE } from "../../src/index.ts";

const F_SETFL = 4;
const F_ADD_SEALS = 1033;

/** Optional calls, as the fault hook sees them. */
const OPTIONAL: Readonly<Record<string, (call: string, offset: number) => boolean>> = {
  madvise: (call) => call === "madvise",
  fallocate: (call) => call === "fallocate",
  // SEEK_DATA and SEEK_HOLE. (Rewinding a directory is required, and has no offset.)
  lseek: (call, offset) => call === "lseek" && offset >= 0,
  "fcntl(F_ADD_SEALS)": (call, offset) => call === "fcntl" && offset === F_ADD_SEALS,
  "fcntl(F_SETFL)": (call, offset) => call === "fcntl" && offset === F_SETFL,
  flock: (call) => call === "flock",
  fsetxattr: (call) => call === "fsetxattr",
  fgetxattr: (call) => call === "fgetxattr",
  mincore: (call) => call === "mincore",
  msync: (call) => call === "msync",
  io_uring_setup: (call) => call === "io_uring_setup",
  userfaultfd: (call) => call === "userfaultfd",
  eventfd: (call) => call === "eventfd",
  sched_getattr: (call) => call === "sched_getattr",
  sched_setattr: (call) => call === "sched_setattr",
  sync_file_range: (call) => call === "sync_file_range",
  posix_fadvise: (call) => call === "posix_fadvise",
};

afterEach(() => setFaultHook(undefined));

const MODES: readonly AllocationMode[] = [
  "uncommitted",
  "callerIndirectCommit",
  "commit",
  "writePopulate",
];

/** Uses a file as programs do, and checks its memory. */
async function useFile(root: string, path: string | undefined): Promise<void> {
  const advice = { adviseHugepage: true, adviseNoHugepage: true, expectHugepages: true };
  using file = MemoryFile.create({ path, ...advice });
  const kept = file.allocate(8 * PAGE_SIZE);
  file.view(kept).fill(7);
  for (const mode of MODES) {
    for (const huge of [false, true]) {
      const range = file.allocate(huge ? HUGE_PAGE_SIZE : 8 * PAGE_SIZE, { mode, huge });
      const view = file.view(range);
      expect([view[0], view.at(-1)]).toEqual([0, 0]);
      view.fill(3);
      file.decommit({ start: range.start, end: range.start + PAGE_SIZE });
      expect([view[0], view[PAGE_SIZE]]).toEqual([0, 3]);
      file.decRef(range);
    }
  }
  await file.released();
  file.updateUsage();
  expect(file.usage()).toBeDefined();
  file.markEvictable({ evict() {} }, { start: 0, end: 1 });
  expect(MemoryFile.attach(file.share()).view(kept)[0]).toBe(7);
  const directory = join(root, `checkpoint-${path === undefined ? "memory" : "disk"}`);
  await file.saveTo(directory);
  file.view(kept)[0] = 8;
  await file.saveTo(directory);
  using loaded = await MemoryFile.loadFrom(directory, { background: true });
  await loaded.awaitLoad();
  expect([...loaded.view(kept).subarray(0, 2)]).toEqual([8, 7]);
  for (const options of [{ queue: "inline" }, { verify: false }] as const) {
    using mapped = await MemoryFile.loadFrom(directory, { mapped: true, ...options });
    await mapped.awaitLoad(kept);
    expect([...mapped.view(kept).subarray(0, 2)]).toEqual([8, 7]);
  }
}

for (const [name, isRefused] of Object.entries(OPTIONAL)) {
  test(`a program works without ${name}`, async () => {
    for (const code of ["EPERM", "ENOSYS", "EINVAL", "ENODEV"]) {
      const root = mkdtempSync(join(tmpdir(), "pgalloc-optional-"));
      const errno = errnoNumber(code);
      setFaultHook((call, _fd, offset) => (isRefused(call, offset) ? { errno } : undefined));
      try {
        await useFile(root, undefined);
        await useFile(root, join(root, "memory"));
      } catch (error) {
        throw new Error(`${name} refused with ${code}`, { cause: error });
      } finally {
        setFaultHook(undefined);
        rmSync(root, { recursive: true });
      }
    }
  }, 30_000);
}
