/** The file that holds a MemoryFile's memory, on real file systems and in other processes. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errnoNumber, setFaultHook } from "../../ffi/index.ts";
import {
  CHUNK_SIZE,
  MemoryFile,
  NotMemoryError,
  PAGE_SIZE,
  PathInUseError,
} from "../../src/index.ts";
import { coreOf } from "../../src/file/memory-file.ts";

let root = "";
let path = "";

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "pgalloc-backing-"));
  path = join(root, "memory");
});

afterEach(() => {
  setFaultHook(undefined);
  rmSync(root, { recursive: true });
});

const index = join(import.meta.dir, "../../src/index.ts");

/** Runs a program with `MemoryFile` in a shell with a limit. */
function limited(limit: string, code: string): string {
  const program = `const { MemoryFile } = await import(${JSON.stringify(index)}); ${code}`;
  const script = `${limit} && exec "$0" -e "$1"`;
  const { stdout, stderr } = Bun.spawnSync(["sh", "-c", script, process.execPath, program]);
  return `${stdout}${stderr}`.trim();
}

test("create refuses a path that another MemoryFile of this process uses", () => {
  using first = MemoryFile.create({ path });
  const view = first.view(first.allocate(PAGE_SIZE)).fill(5);
  const error = (() => {
    try {
      MemoryFile.create({ path });
    } catch (thrown) {
      return thrown;
    }
  })();
  expect(error).toBeInstanceOf(PathInUseError);
  expect(error).toMatchObject({ code: "ERR_PATH_IN_USE", path });
  expect([view[0], first.totalSizeBytes, statSync(path).size]).toEqual([5, CHUNK_SIZE, CHUNK_SIZE]);
});

test("create refuses a path that another process uses", () => {
  using first = MemoryFile.create({ path });
  const view = first.view(first.allocate(PAGE_SIZE)).fill(5);
  const seen = limited(
    "true",
    `const path = ${JSON.stringify(path)};
    try { MemoryFile.create({ path }) } catch (error) { console.log(error.code) }`,
  );
  expect(seen).toBe("ERR_PATH_IN_USE");
  expect(view[0]).toBe(5);
});

test("create empties and uses again a file that a MemoryFile left behind", () => {
  const first = MemoryFile.create({ path });
  first.view(first.allocate(PAGE_SIZE)).fill(5);
  first.destroy();
  using second = MemoryFile.create({ path });
  expect(second.totalSizeBytes).toBe(0);
  expect(second.view(second.allocate(PAGE_SIZE))[0]).toBe(0);
});

test("create refuses a file that this library did not make, and does not change it", () => {
  writeFileSync(path, "notes");
  expect(() => MemoryFile.create({ path })).toThrow(NotMemoryError);
  expect(readFileSync(path, "utf8")).toBe("notes");
  writeFileSync(path, "");
  MemoryFile.create({ path }).destroy();
});

test("create refuses a path that is not a file, and says that a path is a symbolic link", () => {
  expect(() => MemoryFile.create({ path: root })).toThrow("EISDIR");
  Bun.spawnSync(["mkfifo", path]);
  expect(() => MemoryFile.create({ path })).toThrow(NotMemoryError);
  symlinkSync(join(root, "elsewhere"), join(root, "link"));
  expect(() => MemoryFile.create({ path: join(root, "link") })).toThrow("symbolic link");
  expect(existsSync(join(root, "elsewhere"))).toBe(false);
});

test("create works on a file system with neither locks nor attributes", () => {
  const refused = ["flock", "fsetxattr", "fgetxattr"];
  setFaultHook((call) => (refused.includes(call) ? { errno: 95 } : undefined));
  MemoryFile.create({ path }).destroy();
});

test("mode sets the permissions of a new file", () => {
  const umask = process.umask(0);
  try {
    MemoryFile.create({ path, mode: 0o640 }).destroy();
    expect(statSync(path).mode & 0o777).toBe(0o640);
    MemoryFile.create({ path: join(root, "other") }).destroy();
    expect(statSync(join(root, "other")).mode & 0o777).toBe(0o600);
  } finally {
    process.umask(umask);
  }
  for (const mode of [-1, 0o1000, 1.5])
    expect(() => MemoryFile.create({ path, mode })).toThrow(RangeError);
});

test("create accepts a name of 249 bytes", () => {
  for (const name of ["", "é".repeat(124), "x".repeat(249)]) MemoryFile.create({ name }).destroy();
});

test("create treats null as an absent option", () => {
  const absent = { name: null, path: null, limitBytes: null, mode: null };
  MemoryFile.create(absent as never).destroy();
});

test("create with a small limit reserves little address space", () => {
  const reserved = (options: object) => {
    using file = MemoryFile.create(options);
    return coreOf(file).mapping.capacityBytes;
  };
  expect(reserved({ limitBytes: PAGE_SIZE })).toBe(CHUNK_SIZE);
  expect(reserved({ limitBytes: PAGE_SIZE, expectHugepages: true })).toBe(2 * CHUNK_SIZE);
  expect(reserved({ limitBytes: 3 * CHUNK_SIZE })).toBe(6 * CHUNK_SIZE);
});

test("create with a small limit leaves room for what the file's checkpoint holds", async () => {
  const directory = join(root, "checkpoint");
  using file = MemoryFile.create();
  for (let i = 0; i < 3; i++) file.allocate(CHUNK_SIZE);
  const last = file.allocate(PAGE_SIZE);
  file.view(last).fill(7);
  await file.saveTo(directory);
  using loaded = await MemoryFile.loadFrom(directory, { limitBytes: 4 * CHUNK_SIZE });
  expect(loaded.view(last)[0]).toBe(7);
});

test("create, save and load work in little address space", () => {
  const code = `
    const file = MemoryFile.create(JSON.parse(process.argv[1] ?? "{}"));
    console.log(file.view(file.allocate(4096)).fill(7)[0]);`;
  // The engine itself takes some 6 GiB.
  expect(limited("ulimit -v 16777216", code)).toBe("7");
  expect(limited("ulimit -d 3145728", code)).toBe("7");
});

test("allocate names a limit of file sizes below a chunk", () => {
  const code = `
    const file = MemoryFile.create();
    try { file.allocate(4096) } catch (error) { console.log(error.code, error.message) }`;
  expect(limited("ulimit -f 1024", code)).toContain("ulimit -f");
});

test("create names the whole path of a relative one", () => {
  const home = process.cwd();
  process.chdir(root);
  try {
    symlinkSync("nowhere", "dangling");
    const whole = join(process.cwd(), "dangling");
    expect(() => MemoryFile.create({ path: "dangling" })).toThrow(
      `ELOOP: open failed for '${whole}': it is a symbolic link, which is not followed`,
    );
  } finally {
    process.chdir(home);
  }
});

test("allocate names the file that its file system cannot map", () => {
  const path = join(root, "unmappable");
  setFaultHook((call, fd) =>
    call === "mmap" && fd >= 0 ? { errno: errnoNumber("ENODEV") } : undefined,
  );
  try {
    expect(() => MemoryFile.create({ path }).allocate(4096)).toThrow(
      `ENODEV: mmap failed for '${path}': its file system cannot map files for shared writing`,
    );
  } finally {
    setFaultHook(undefined);
  }
});
