/**
 * A save that fails: a typed error, the previous checkpoint unchanged, no temporary files, no leak.
 * Every wrapped call of a save fails once (support/fault-hook.ts). Other tests have a full disk and
 * files that are too large.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errnoNumber, setFaultHook } from "../../ffi/index.ts";
import { CheckpointBusyError, MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { expectDescriptors, namedDescriptors } from "./support/descriptors.ts";
import { type CallName, Faults } from "./support/fault-control.ts";
import { installFaultHook } from "./support/fault-hook.ts";
import { listing as listFiles } from "../checkpoint/support/page-files.ts";
import { beginFaults } from "./support/in-process.ts";
import { checkStamped, saveStamped, stampedFile } from "./support/stamped.ts";

const PAGES = 600;
/** Every call of a save whose failure matters. unlinkat and close are below. */
const FAILING: readonly CallName[] = [
  "open",
  "openat",
  "mkdir",
  "getdents",
  "renameat",
  "flock",
  "fsync",
  "lseek",
  "pwrite",
  "pwritev",
  "fstat",
];
const program = join(import.meta.dir, "support/save-program.ts");

let faults: Faults;
let endFaults: () => Promise<void>;
let root: string;
let directory: string;

beforeAll(async () => {
  ({ faults, end: endFaults } = await beginFaults());
});
afterAll(() => endFaults());
beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), "pgalloc-save-faults-"));
  directory = join(root, "checkpoint");
  await saveStamped(directory, PAGES, 1);
});
afterEach(() => {
  faults.disarm();
  rmSync(root, { recursive: true });
});

const listing = (path = directory) => listFiles(path);

describe.each(["EIO", "ENOSPC", "EDQUOT", "EFBIG"])("saveTo with %s", (code) => {
  test("fails at each call with a typed error, or completes", async () => {
    const clean = listing();
    using file = stampedFile(PAGES, 2);
    const before = namedDescriptors();
    let failures = 0;
    let ignored = 0;
    for (let at = 0; ; at++) {
      faults.arm({
        action: "Fail",
        calls: FAILING,
        value: errnoNumber(code),
        from: at,
        until: at + 1,
      });
      const failure = await file.saveTo(directory, { userData: new Uint8Array([2]) }).then(
        () => undefined,
        (error) => error,
      );
      const { hits } = faults;
      faults.disarm();
      if (failure !== undefined) expect(failure).toMatchObject({ name: "SyscallError", code });
      expect(new Set(listing())).toEqual(new Set(clean));
      if (failure === undefined) expect(listing()).toEqual(clean);
      const version = await checkStamped(directory, PAGES);
      expect([1, 2]).toContain(version);
      if (hits === 0) break;
      if (failure === undefined) ignored++;
      else failures++;
      // Only the last calls, which end the lock and look for pages to return, work without an
      // answer.
      if (failure !== undefined) expect(ignored).toBe(0);
      expect(ignored).toBeLessThanOrEqual(3);
      // After the commit only the removal of old files can fail: the call throws, and the new
      // checkpoint is in place.
      if (version === 2) await saveStamped(directory, PAGES, 1);
    }
    console.log(`    ${failures} calls failed with ${code}, one at a time`);
    expect(failures).toBeGreaterThan(8);
    await expectDescriptors(before);
  });
});

test("saveTo finishes writes that fall short", async () => {
  faults.arm({ action: "Shorten", calls: ["pwrite"], value: 5000 });
  await saveStamped(directory, PAGES, 2);
  expect(faults.hits).toBeGreaterThan(100);
  expect(await checkStamped(directory, PAGES)).toBe(2);
});

test("saveTo fails if a write moves nothing", async () => {
  faults.arm({ action: "Shorten", calls: ["pwrite"], value: 0 });
  await expect(saveStamped(directory, PAGES, 2)).rejects.toMatchObject({ name: "SyscallError" });
  expect(await checkStamped(directory, PAGES)).toBe(1);
});

test("saveTo fails if a writing Worker dies", async () => {
  const clean = listing();
  using file = stampedFile(PAGES, 2);
  for (const [call, consistent] of [
    ["pwrite", true],
    ["pwrite", false],
    ["lseek", false],
  ] as const) {
    faults.arm({ action: "ExitThread", calls: [call], until: 1 });
    const save = file.saveTo(directory, { consistent });
    await expect(save).rejects.toMatchObject({ code: "ERR_THREAD_DIED" });
    faults.disarm();
    expect(listing()).toEqual(clean);
    expect(await checkStamped(directory, PAGES)).toBe(1);
  }
});

test("saveTo ends by its signal, or if onProgress throws, without a trace", async () => {
  const clean = listing();
  using file = stampedFile(PAGES, 2);
  faults.arm({ action: "Delay", calls: ["pwrite"], value: 80 });
  const controller = new AbortController();
  const aborted = file.saveTo(directory, { signal: controller.signal });
  setTimeout(() => controller.abort(new Error("enough")), 20);
  await expect(aborted).rejects.toThrow("enough");
  const onProgress = () => {
    throw new Error("no more");
  };
  await expect(file.saveTo(directory, { onProgress })).rejects.toThrow("no more");
  expect(listing()).toEqual(clean);
  expect(await checkStamped(directory, PAGES)).toBe(1);
});

test("saveTo ends at destroy, with a complete checkpoint or an error", async () => {
  const file = stampedFile(PAGES, 2);
  faults.arm({ action: "Delay", calls: ["pwrite"], value: 20 });
  const save = file.saveTo(directory, { userData: new Uint8Array([2]) });
  file.destroy();
  const failure = await save.then(
    () => undefined,
    (error) => error,
  );
  faults.disarm();
  if (failure !== undefined) expect(failure).toMatchObject({ code: "ERR_DESTROYED" });
  expect(await checkStamped(directory, PAGES)).toBe(failure === undefined ? 2 : 1);
});

describe("saveTo twice at once into one directory", () => {
  test("succeeds once in one process, and the other call gets an error", async () => {
    using second = stampedFile(PAGES, 2);
    using third = stampedFile(PAGES, 3);
    faults.arm({ action: "Delay", calls: ["pwrite"], value: 20 });
    const results = await Promise.allSettled([
      second.saveTo(directory, { userData: new Uint8Array([2]) }),
      third.saveTo(directory, { userData: new Uint8Array([3]) }),
    ]);
    expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
    expect((results[1] as PromiseRejectedResult).reason).toBeInstanceOf(CheckpointBusyError);
    expect(await checkStamped(directory, PAGES)).toBe(2);
  });

  test("succeeds once in two processes, and the other call gets an error", async () => {
    using slow = new Faults();
    slow.arm({ action: "Delay", calls: ["pwrite"], value: 150 });
    const start = (version: number) =>
      Bun.spawn({
        ...slow.command(program, directory, String(PAGES), String(version)),
        stdout: "pipe",
        stderr: "inherit",
      });
    const children = [start(2), start(3)];
    const outputs = await Promise.all(children.map((child) => new Response(child.stdout).text()));
    expect(outputs.toSorted()).toEqual(["CheckpointBusyError ERR_CHECKPOINT_BUSY\n", "saved\n"]);
    expect(await checkStamped(directory, PAGES)).toBe(outputs.indexOf("saved\n") + 2);
  });
});

describe("outside limits", () => {
  test.skipIf(Bun.which("prlimit") === null)(
    "fail saveTo with EFBIG for a file that may not grow so far (RLIMIT_FSIZE)",
    () => {
      const clean = listing();
      const limit = String(300 * PAGE_SIZE);
      const { stdout } = Bun.spawnSync(
        [process.execPath, program, directory, String(PAGES), "2", limit],
        { stderr: "inherit" },
      );
      expect(stdout.toString()).toBe("SyscallError EFBIG\n");
      expect(listing()).toEqual(clean);
    },
  );

  const canMount =
    process.getuid?.() === 0 && Bun.spawnSync(["unshare", "--mount", "true"]).exitCode === 0;
  test.skipIf(!canMount)(
    "fail saveTo with ENOSPC on a full disk (a small tmpfs; needs root)",
    async () => {
      const disk = join(root, "disk");
      mkdirSync(disk);
      // In a mount namespace of its own, which ends with the process, so nothing stays mounted.
      const script = [
        `mount -t tmpfs -o size=${(3 * PAGES * PAGE_SIZE) / 2} tmpfs "$2"`,
        '"$0" "$1" "$2/c" 600 1 && "$0" "$1" "$2/c" 600 2 && cp -r "$2/c" "$3"',
      ].join(" && ");
      const copy = join(root, "copy");
      const { stdout, exitCode } = Bun.spawnSync(
        ["unshare", "--mount", "sh", "-c", script, process.execPath, program, disk, copy],
        { stderr: "inherit" },
      );
      expect([stdout.toString(), exitCode]).toEqual(["saved\nSyscallError ENOSPC\n", 0]);
      expect(await checkStamped(copy, PAGES)).toBe(1);
      expect(listing(copy)).toEqual(["meta", "pages"]);
    },
  );

  const hasLoop = existsSync("/dev/loop-control") && Bun.which("mkfs.btrfs") !== null;
  const canLimit =
    canMount && hasLoop && readFileSync("/proc/filesystems", "utf8").includes("btrfs");
  test.skipIf(!canLimit)(
    "fail saveTo with EDQUOT by a quota (a small btrfs; needs root and btrfs-progs)",
    async () => {
      const disk = join(root, "disk");
      mkdirSync(disk);
      const image = join(root, "image");
      const script = [
        `truncate -s 256M "${image}" && mkfs.btrfs -q "${image}" >/dev/null && mount -o loop ` +
          `"${image}" "$2"`,
        'btrfs quota enable "$2" && btrfs subvolume create "$2/v" >/dev/null && ' +
          'btrfs qgroup limit 4M "$2/v"',
        '"$0" "$1" "$2/v/c" 600 1 && sync && "$0" "$1" "$2/v/c" 600 2 && cp -r "$2/v/c" "$3"',
      ].join(" && ");
      const copy = join(root, "copy");
      const child = Bun.spawnSync([
        "unshare",
        "--mount",
        "sh",
        "-c",
        script,
        process.execPath,
        program,
        disk,
        copy,
      ]);
      expect([child.stdout.toString(), child.exitCode]).toEqual([
        "saved\nSyscallError EDQUOT\n",
        0,
      ]);
      expect(await checkStamped(copy, 600)).toBe(1);
      expect(listing(copy)).toEqual(["meta", "pages"]);
    },
  );

  test.skipIf(!canMount)(
    "fail allocate and loadFrom on a disk that is too small, without a SIGBUS",
    async () => {
      const disk = join(root, "disk");
      mkdirSync(disk);
      const script = 'mount -t tmpfs -o size=1m tmpfs "$2" && "$0" "$1" "$2" "$3"';
      const diskProgram = join(import.meta.dir, "support/disk-program.ts");
      const child = Bun.spawnSync([
        "unshare",
        "--mount",
        "sh",
        "-c",
        script,
        process.execPath,
        diskProgram,
        disk,
        directory,
      ]);
      expect([child.stderr.toString(), child.exitCode]).toEqual(["", 0]);
      expect(child.stdout.toString().split("\n")).toEqual([
        "commit ENOSPC 0",
        "writePopulate EFAULT 0",
        "small true",
        "workers EFAULT true true true",
        "inline EFAULT true true true",
        "",
      ]);
    },
  );
});

test("saveTo survives a failing close, because it syncs before", async () => {
  const before = namedDescriptors();
  faults.arm({ action: "Fail", calls: ["close"], value: errnoNumber("EIO") });
  await saveStamped(directory, PAGES, 2);
  expect(faults.hits).toBeGreaterThan(5);
  expect(await checkStamped(directory, PAGES)).toBe(2);
  expect(listing()).toEqual(["meta", "pages"]);
  await expectDescriptors(before);
});

test("saveTo reports a failing unlink beside the error of the save", async () => {
  using file = stampedFile(PAGES, 2);
  writeFileSync(join(directory, "pages-0123456789abcdef"), "left by another save");
  faults.arm({ action: "Fail", calls: ["unlinkat"], value: errnoNumber("EIO") });
  await expect(file.saveTo(directory)).rejects.toMatchObject({ code: "EIO", syscall: "unlinkat" });
  rmSync(join(directory, "pages-0123456789abcdef"));
  const onProgress = () => {
    throw new Error("no more");
  };
  const unlinkError = expect.objectContaining({ code: "EIO", syscall: "unlinkat" });
  const failure = await file.saveTo(directory, { onProgress }).catch((error) => error);
  expect(failure).toBeInstanceOf(AggregateError);
  expect(failure.errors).toEqual([expect.objectContaining({ message: "no more" }), unlinkError]);
  expect(await checkStamped(directory, PAGES)).toBe(1);
  // The next save removes the files that could not be removed.
  faults.disarm();
  expect(listing().length).toBeGreaterThan(2);
  await saveStamped(directory, PAGES, 3);
  expect(listing()).toEqual(["meta", "pages"]);
});

test("saveTo syncs a new directory, and those above it, into their parents", async () => {
  const deep = join(root, "a/b/c");
  const synced = (path: string) => {
    let count = 0;
    setFaultHook((call, fd) => {
      if (call === "fsync" && readlinkSync(`/proc/self/fd/${fd}`) === path) count++;
      return undefined;
    });
    return () => count;
  };
  for (const parent of [root, join(root, "a"), join(root, "a/b")]) {
    rmSync(join(root, "a"), { recursive: true, force: true });
    const count = synced(parent);
    await saveStamped(deep, 3, 1);
    expect([parent, count()]).toEqual([parent, 1]);
    await saveStamped(deep, 3, 2);
    expect(count()).toBe(1);
  }
  installFaultHook(faults.path);
});

test("saveTo leaves an empty directory empty if the first save fails", async () => {
  const fresh = join(root, "fresh");
  faults.arm({ action: "Fail", calls: ["fsync"], value: errnoNumber("EIO") });
  await expect(saveStamped(fresh, PAGES, 1)).rejects.toMatchObject({
    code: "EIO",
    syscall: "fsync",
  });
  expect(listing(fresh)).toEqual([]);
  await expect(MemoryFile.loadFrom(fresh)).rejects.toMatchObject({
    code: "ERR_NO_CHECKPOINT",
  });
  expect(statSync(fresh).mode & 0o777).toBe(0o700);
});
