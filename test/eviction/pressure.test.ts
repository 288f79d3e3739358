/**
 * The file that reports pressure, and the thread that waits for it. test/examples/cache.test.ts has
 * real pressure.
 */
import { expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { closeFile, createEventFd, errnoNumber, signalEventFd } from "../../ffi/index.ts";
import { MemoryFile, PressureUnavailableError } from "../../src/index.ts";
import {
  cgroupPressureFile,
  openPressureTrigger,
  pressureFiles,
} from "../../src/eviction/pressure-file.ts";
import { run as waitForPressure } from "../../src/eviction/wait-task.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { threadCount } from "../../src/threads/pool.ts";

/** The directory of the root cgroup's pressure file, version 2; null if there is none. */
function cgroupRoot(): string | null {
  const file = cgroupPressureFile("0::/\n", readFileSync("/proc/self/mountinfo", "utf8"));
  return file === null ? null : dirname(file);
}

function canMakeCgroup(): boolean {
  const root = cgroupRoot();
  if (root === null) return false;
  const path = join(root, `pgalloc-probe-${process.pid}`);
  try {
    mkdirSync(path);
  } catch {
    return false;
  }
  const tells = existsSync(join(path, "memory.pressure"));
  rmdirSync(path);
  return tells;
}

const MOUNTS = [
  "25 30 0:22 / /proc rw,nosuid - proc proc rw",
  "31 25 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory",
  "32 25 0:28 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate",
].join("\n");

test.each([
  [
    "a process in a cgroup",
    "1:memory:/a\n0::/user.slice/one\n",
    MOUNTS,
    "/sys/fs/cgroup/unified/user.slice/one/memory.pressure",
  ],
  ["in the root cgroup", "0::/\n", MOUNTS, "/sys/fs/cgroup/unified/memory.pressure"],
  ["version 1 only", "4:memory:/a\n", MOUNTS, null],
  ["version 2 is not mounted", "0::/a\n", MOUNTS.replace("cgroup2 cgroup2", "tmpfs none"), null],
  [
    "a part of the hierarchy is mounted",
    "0::/pod/box/one\n",
    MOUNTS.replace("0:28 / ", "0:28 /pod/box "),
    "/sys/fs/cgroup/unified/one/memory.pressure",
  ],
  ["another part of it is", "0::/pod/other\n", MOUNTS.replace("0:28 / ", "0:28 /pod/box "), null],
  ["outside of the cgroup namespace", "0::/../other\n", MOUNTS, null],
  [
    "a mount point with a space",
    "0::/a\n",
    MOUNTS.replace("/sys/fs/cgroup/unified", "/mnt/c\\040g"),
    "/mnt/c g/a/memory.pressure",
  ],
])("%s", (_, cgroup, mountinfo, expected) => {
  expect(cgroupPressureFile(cgroup, mountinfo)).toBe(expected);
});

test("pressureFiles has the machine's file last", () => {
  expect(pressureFiles().at(-1)).toBe("/proc/pressure/memory");
});

test("watchPressure tries the next file, and names those that refuse", () => {
  const threshold = { stallMs: 100, windowMs: 2000 };
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-pressure-"));
  const takesAnything = join(directory, "memory.pressure");
  writeFileSync(takesAnything, "");
  const { fd, path } = openPressureTrigger(threshold, ["/proc/no-such-file", takesAnything]);
  closeFile(fd);
  expect(path).toBe(takesAnything);
  expect(readFileSync(takesAnything, "utf8")).toBe("some 100000 2000000\0");
  rmSync(directory, { recursive: true });
  try {
    openPressureTrigger(threshold, ["/proc/no-such-file", "/proc/version"]);
    throw new Error("Expected no trigger");
  } catch (thrown) {
    const { errors, code } = thrown as PressureUnavailableError;
    expect(thrown).toBeInstanceOf(PressureUnavailableError);
    expect(code).toBe("ERR_PRESSURE_UNAVAILABLE");
    expect(errors.map((error) => (error as NodeJS.ErrnoException).errno)).toEqual([
      -errnoNumber("ENOENT"),
      expect.any(Number),
    ]);
  }
});

const TELLS_OF_PRESSURE = (() => {
  using file = MemoryFile.create();
  return file.evictionTrigger.kind === "pressure";
})();

const descriptors = () => readdirSync("/proc/self/fd").length;

test.skipIf(!TELLS_OF_PRESSURE)(
  "files share one waiting thread, which ends with the last of them",
  async () => {
    while (threadCount().busy > 0) await Bun.sleep(1); // the probe's
    const fds = descriptors();
    const files = [MemoryFile.create(), MemoryFile.create()];
    expect(threadCount().busy).toBe(0); // not asked yet
    for (const file of files) expect(file.evictionTrigger.kind).toBe("pressure");
    expect(threadCount().busy).toBe(1);
    const other = MemoryFile.create({ memoryPressure: { stallMs: 300, windowMs: 2000 } });
    other.markEvictable({ evict() {} }, { start: 0, end: 1 });
    expect(threadCount().busy).toBe(2);
    other.destroy();
    files[0]!.destroy();
    while (threadCount().busy > 1) await Bun.sleep(1);
    expect(files[1]!.evictionTrigger.kind).toBe("pressure");
    files[1]!.destroy();
    while (threadCount().busy > 0) await Bun.sleep(1);
    await terminateIdleThreads();
    expect(descriptors()).toBeLessThanOrEqual(fds);
  },
);

test.skipIf(!TELLS_OF_PRESSURE)(
  "watchPressure works again in the turn in which the last watch ended",
  async () => {
    const first = MemoryFile.create();
    expect(first.shouldCacheEvictable()).toBe(true);
    first.destroy();
    const second = MemoryFile.create();
    expect(second.shouldCacheEvictable()).toBe(true);
    second.destroy();
    while (threadCount().busy > 0) await Bun.sleep(1);
  },
);

test.skipIf(!TELLS_OF_PRESSURE)(
  "a thread that waits for pressure does not keep the process alive",
  async () => {
    const index = join(import.meta.dir, "../../src/index.ts");
    const source = `
    import { MemoryFile } from ${JSON.stringify(index)};
    const file = MemoryFile.create();
    file.markEvictable({ evict() {} }, { start: 0, end: 1 });
    console.log(file.evictionTrigger.kind);
  `;
    const run = Bun.spawn([process.execPath, "-e", source], { stdout: "pipe", stderr: "pipe" });
    const timer = setTimeout(() => run.kill("SIGKILL"), 30_000);
    const output =
      (await new Response(run.stdout).text()) + (await new Response(run.stderr).text());
    expect(`${await run.exited} ${output}`).toBe("0 pressure\n");
    clearTimeout(timer);
  },
);

test("the wait ends when its owner stops it", () => {
  const [triggerFd, stopFd] = [createEventFd(), createEventFd()];
  signalEventFd(stopFd);
  expect(waitForPressure({ triggerFd, stopFd })).toBe("stopped");
  closeFile(stopFd);
  closeFile(triggerFd);
});

test.skipIf(!canMakeCgroup())("the wait ends when its cgroup is removed", () => {
  const path = join(cgroupRoot()!, `pgalloc-test-${process.pid}`);
  mkdirSync(path);
  const { fd } = openPressureTrigger({ stallMs: 100, windowMs: 2000 }, [
    join(path, "memory.pressure"),
  ]);
  const stopFd = createEventFd();
  rmdirSync(path);
  expect(waitForPressure({ triggerFd: fd, stopFd })).toBe("lost");
  closeFile(fd);
  closeFile(stopFd);
});

test("attach gives other threads the mode of the file", () => {
  using file = MemoryFile.create({ delayedEviction: "manual" });
  using same = MemoryFile.attach(file.share());
  expect(same.evictionTrigger).toEqual({ kind: "manual" });
});
