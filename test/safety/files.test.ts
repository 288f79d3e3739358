/**
 * Files and secrets: the readers of a checkpoint, the descriptors of a child process, the places
 * that a save may write, and the programs that can shrink memory.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  closeSync,
  existsSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exportTo, importFrom } from "../../src/gvisor/index.ts";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { checkStamped, saveStamped, stampedFile } from "./support/stamped.ts";
import { listing, onlyPageFile } from "../checkpoint/support/page-files.ts";

const PAGES = 20;
const program = join(import.meta.dir, "support/save-program.ts");
let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "pgalloc-files-"));
});
afterEach(() => rmSync(root, { recursive: true }));

const modeOf = (path: string): string => (statSync(path).mode & 0o777).toString(8);

test("saveTo makes checkpoints for their owner only, whatever the umask allows", async () => {
  const directory = join(root, "deep/checkpoint");
  const script = 'umask 0 && "$0" "$1" "$2" 20 1';
  const { stdout } = Bun.spawnSync(["sh", "-c", script, process.execPath, program, directory]);
  expect(stdout.toString()).toBe("saved\n");
  expect(modeOf(directory)).toBe("700");
  for (const name of readdirSync(directory))
    expect(`${name} ${modeOf(join(directory, name))}`).toBe(`${name} 600`);
  using file = stampedFile(PAGES, 1);
  await exportTo(file, join(root, "gvisor"));
  for (const name of readdirSync(join(root, "gvisor")))
    expect(modeOf(join(root, "gvisor", name))).toBe("600");
  using onDisk = MemoryFile.create({ path: join(root, "memory") });
  expect([onDisk.totalSizeBytes, modeOf(join(root, "memory"))]).toEqual([0, "600"]);
});

test("every descriptor is closed when another program is started", async () => {
  const checkpoint = join(root, "checkpoint");
  await saveStamped(checkpoint, PAGES, 1);
  using memory = MemoryFile.create();
  using disk = MemoryFile.create({ path: join(root, "memory") });
  for (const file of [memory, disk]) file.view(file.allocate(PAGE_SIZE)).fill(1);
  using loading = await MemoryFile.loadFrom(checkpoint, { background: true });
  const save = memory.saveTo(join(root, "other"));
  // O_CLOEXEC (02000000) in every one of ours, right now, with a load and a save under way.
  const open = readdirSync("/proc/self/fd").flatMap((fd) => {
    if (!existsSync(`/proc/self/fd/${fd}`)) return [];
    const target = readlinkSync(`/proc/self/fd/${fd}`);
    const isOurs = target.includes("memfd:") || target.startsWith(root);
    return isOurs
      ? [
          {
            target,
            flags: Number.parseInt(
              /flags:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))![1]!,
              8,
            ),
          },
        ]
      : [];
  });
  expect(open.length).toBeGreaterThan(3);
  for (const { target, flags } of open)
    expect(`${target} ${(flags & 0o2000000) !== 0}`).toBe(`${target} true`);
  const child = Bun.spawnSync(["sh", "-c", "ls -l /proc/$$/fd"]);
  expect(child.stdout.toString()).not.toContain("memfd:pgalloc");
  expect(child.stdout.toString()).not.toContain(root);
  await save;
  await loading.awaitLoad();
});

test("no process can shrink a memory file that is mapped", () => {
  using file = MemoryFile.create({ name: "sealed" });
  file.view(file.allocate(PAGE_SIZE)).fill(4);
  const fd = readdirSync("/proc/self/fd").find(
    (name) =>
      existsSync(`/proc/self/fd/${name}`) &&
      readlinkSync(`/proc/self/fd/${name}`).includes("memfd:sealed"),
  );
  const stranger = openSync(`/proc/self/fd/${fd}`, "r+");
  expect(() => ftruncateSync(stranger, 0)).toThrow("EPERM");
  closeSync(stranger);
  expect(file.view({ start: 0, end: PAGE_SIZE })[7]).toBe(4);
});

describe("symbolic links", () => {
  /** A file that an attacker hopes a save will write to. */
  let victim: string;
  beforeEach(() => {
    victim = join(root, "victim");
    writeFileSync(victim, "precious");
  });
  afterEach(() => expect(readFileSync(victim, "utf8")).toBe("precious"));

  test("in place of the checkpoint's files are replaced, not followed", async () => {
    const directory = join(root, "checkpoint");
    mkdirSync(directory);
    symlinkSync(victim, join(directory, "meta"));
    await saveStamped(directory, PAGES, 1);
    for (const name of readdirSync(directory))
      expect(lstatSync(join(directory, name)).isSymbolicLink()).toBe(false);
    expect(await checkStamped(directory, PAGES)).toBe(1);
  });

  test("named like temporary files are removed, not followed", async () => {
    const directory = join(root, "checkpoint");
    await saveStamped(directory, PAGES, 1);
    for (const name of ["meta.0123456789abcdef.tmp", "pages-0123456789abcdef"]) {
      symlinkSync(victim, join(directory, name));
    }
    await saveStamped(directory, PAGES, 2);
    expect(listing(directory)).toEqual(["meta", "pages"]);
    expect(await checkStamped(directory, PAGES)).toBe(2);
  });

  test("in place of a gVisor export's files are replaced, not followed", async () => {
    const directory = join(root, "export");
    mkdirSync(directory);
    for (const name of ["pages_meta.img", "pages.img"]) symlinkSync(victim, join(directory, name));
    using file = stampedFile(PAGES, 1);
    await exportTo(file, directory);
    for (const name of readdirSync(directory))
      expect(lstatSync(join(directory, name)).isSymbolicLink()).toBe(false);
  });

  test("in place of a memory file on disk are an error", () => {
    symlinkSync(victim, join(root, "memory"));
    expect(() => MemoryFile.create({ path: join(root, "memory") })).toThrow("ELOOP");
  });
});

describe("symbolic links that a load meets", () => {
  /** A checkpoint as in stores and volumes: a directory of links to files elsewhere. */
  async function linked(save: (directory: string) => Promise<unknown>): Promise<string> {
    const store = join(root, "store");
    const links = join(root, "links");
    await save(store);
    mkdirSync(links);
    for (const name of readdirSync(store)) symlinkSync(join(store, name), join(links, name));
    symlinkSync(links, join(root, "link"));
    return join(root, "link");
  }

  test("are followed to the directory and its files; a save replaces them", async () => {
    const directory = await linked((store) => saveStamped(store, PAGES, 1));
    expect(await checkStamped(directory, PAGES)).toBe(1);
    await saveStamped(directory, PAGES, 2);
    expect([
      await checkStamped(directory, PAGES),
      await checkStamped(join(root, "store"), PAGES),
    ]).toEqual([2, 1]);
  });

  test("are followed in gVisor's format as well", async () => {
    using file = stampedFile(PAGES, 1);
    const directory = await linked((store) => exportTo(file, store));
    using back = await importFrom(directory);
    expect(back.allocatedBytes).toBe(PAGES * PAGE_SIZE);
  });

  test("that lead nowhere, or in a circle, are errors", async () => {
    const directory = join(root, "nowhere");
    mkdirSync(directory);
    symlinkSync(join(root, "missing"), join(directory, "meta"));
    await expect(MemoryFile.loadFrom(directory)).rejects.toMatchObject({
      code: "ERR_NO_CHECKPOINT",
    });
    symlinkSync(join(root, "circle"), join(root, "circle"));
    await expect(MemoryFile.loadFrom(join(root, "circle"))).rejects.toMatchObject({
      code: "ELOOP",
      syscall: "open",
    });
    await expect(saveStamped(join(root, "circle"), PAGES, 1)).rejects.toMatchObject({
      code: "EEXIST",
      syscall: "mkdir",
    });
  });
});

test("saveTo keeps other files, and refuses a file in place of the directory", async () => {
  const directory = join(root, "checkpoint");
  mkdirSync(directory);
  const strangers = ["notes.txt", "pages.old", "meta.bak", "pages-0123", "pages-0123456789ABCDEF"];
  for (const name of strangers) writeFileSync(join(directory, name), name);
  await saveStamped(directory, PAGES, 1);
  for (const name of strangers) expect(readFileSync(join(directory, name), "utf8")).toBe(name);
  await expect(saveStamped(join(directory, "notes.txt"), PAGES, 1)).rejects.toMatchObject({
    code: expect.stringMatching(/EEXIST|ENOTDIR/),
  });
  await expect(saveStamped(join(root, "a\0b"), PAGES, 1)).rejects.toThrow();
});

test.each(["meta", "pages"])("a FIFO in place of %s does not hang a load", async (name) => {
  const directory = join(root, "checkpoint");
  await saveStamped(directory, PAGES, 1);
  const path = name === "meta" ? join(directory, name) : onlyPageFile(directory);
  rmSync(path);
  Bun.spawnSync(["mkfifo", path]);
  await expect(MemoryFile.loadFrom(directory)).rejects.toMatchObject({
    code: "ERR_CORRUPT_CHECKPOINT",
  });
});
