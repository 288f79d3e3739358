/** Runs the command line tool like a user: a process with arguments, output and an exit code. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  closeSync,
  cpSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { onlyPageFile } from "../checkpoint/support/page-files.ts";
import packageJson from "../../package.json" with { type: "json" };
import { HEADER_BYTES, Section, TABLE_ENTRY_BYTES } from "../../src/checkpoint/format.ts";
import { formatBytes } from "../../src/cli/bytes.ts";
import { HUGE_PAGE_SIZE, MemoryFile, MemoryKind, PAGE_SIZE } from "../../src/index.ts";

const program = join(import.meta.dir, "../..", packageJson.bin.pgalloc);
const fixtures = join(import.meta.dir, "../data/gvisor");

let root: string;
let checkpoint: string;

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "pgalloc-cli-"));
  checkpoint = join(root, "checkpoint");
  using file = MemoryFile.create({ expectHugepages: true });
  const table = file.allocate(10 * PAGE_SIZE, { kind: MemoryKind.Tmpfs, group: 3 });
  file.view(table).fill(1);
  const sparse = file.allocate(20 * PAGE_SIZE, { kind: 17 });
  for (const page of [0, 1, 5]) file.view(sparse)[page * PAGE_SIZE] = 2;
  file.incRef({ start: sparse.start, end: sparse.start + PAGE_SIZE });
  const huge = file.allocate(HUGE_PAGE_SIZE, { huge: true });
  file.view(huge)[0] = 3;
  file.decRef({ start: huge.end - PAGE_SIZE, end: huge.end });
  await file.saveTo(checkpoint, { userData: new Uint8Array(345) });
});
afterAll(() => rmSync(root, { recursive: true }));

function run(...args: string[]): { exitCode: number; stdout: string; stderr: string } {
  const child = Bun.spawnSync([process.execPath, program, ...args], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  return {
    exitCode: child.exitCode,
    stdout: child.stdout.toString(),
    stderr: child.stderr.toString(),
  };
}

/** A copy of the checkpoint, to damage. */
function copy(name: string): string {
  const directory = join(root, name);
  cpSync(checkpoint, directory, { recursive: true });
  return directory;
}

/** Changes a byte to another value, whatever it is: some, such as a checkpoint's id, are random. */
function overwrite(path: string, offset: number): void {
  const fd = openSync(path, "r+");
  const byte = new Uint8Array(1);
  readSync(fd, byte, 0, 1, offset);
  byte[0]! ^= 0xff;
  writeSync(fd, byte, 0, 1, offset);
  closeSync(fd);
}

describe("the tool", () => {
  test("is executable, and its first line names Bun", () => {
    expect(readFileSync(program, "utf8")).toStartWith("#!/usr/bin/env bun\n");
    const path = `${join(process.execPath, "..")}:${process.env["PATH"]}`;
    const child = Bun.spawnSync([program, "--version"], { env: { ...process.env, PATH: path } });
    expect(child.stdout.toString()).toBe(`${packageJson.version}\n`);
  });

  test("prints help and the version", () => {
    for (const flag of ["--help", "-h", "help"]) {
      const { exitCode, stdout } = run(flag);
      expect(exitCode).toBe(0);
      for (const word of ["demo", "inspect DIR", "verify DIR", "bench", "--version"])
        expect(stdout).toContain(word);
    }
    expect(run("--version")).toEqual({
      exitCode: 0,
      stdout: `${packageJson.version}\n`,
      stderr: "",
    });
    expect(run("verify", "--help").stdout).toContain("exits with 1 if any is bad");
    for (const command of ["demo", "inspect", "verify", "list", "copy", "prune", "map"]) {
      const [usage, ...rest] = run(command, "--help").stdout.split("\n") as [string, ...string[]];
      // Each flag of the usage has a line that says what it means.
      for (const [flag] of usage.matchAll(/--[a-z-]+/g))
        expect(rest.some((line) => new RegExp(`^ {2}${flag}\\b.* {2}\\w`).test(line))).toBe(true);
    }
    expect(run("-V").stdout).toBe(`${packageJson.version}\n`);
    expect(run("bench", "--help")).toMatchObject({
      exitCode: 0,
      stdout: expect.stringContaining("--rounds"),
    });
  });

  test.each([
    [[], "Expected a command"],
    [["frobnicate"], 'Unknown command "frobnicate"'],
    [["toString"], 'Unknown command "toString"'],
    [["inspect"], "Expected DIR"],
    [["verify", "a", "b"], 'Unexpected argument "b"'],
    [["verify", "--nonsense", "a"], "--nonsense"],
    [["inspect", "a", "--format", "tar"], "native or gvisor"],
    [["demo", "--size", "0"], '--size to be 1 to 65536, got "0"'],
    [["demo", "--size", "1.5"], 'got "1.5"'],
    [["demo", "--size"], "--size"],
  ] as [string[], string][])("%j makes no sense: exit code 2", (args, message) => {
    const { exitCode, stdout, stderr } = run(...args);
    expect(stderr).toContain(message);
    expect(stderr).not.toContain("    at ");
    expect([exitCode, stdout]).toEqual([2, ""]);
  });

  test("exits with 1 and without a stack for a missing directory", () => {
    for (const command of ["inspect", "verify"]) {
      const { exitCode, stderr } = run(command, join(root, "nowhere"));
      expect(exitCode).toBe(1);
      expect(stderr).toContain("ENOENT");
      expect(stderr).not.toContain("    at ");
    }
  });
});

describe("inspect", () => {
  const expected = {
    format: "native",
    pageSize: PAGE_SIZE,
    chunks: { small: 1, huge: 1 },
    runs: 5,
    usedBytes: 29 * PAGE_SIZE + HUGE_PAGE_SIZE,
    subReleasedBytes: PAGE_SIZE,
    wasteBytes: 0,
    maxReferences: 2,
    sharedBytes: PAGE_SIZE,
    extents: 3,
    contentBytes: 14 * PAGE_SIZE,
    hasChecksums: true,
    userDataBytes: 345,
    bytesByKind: {
      Tmpfs: 10 * PAGE_SIZE,
      17: 20 * PAGE_SIZE,
      Anonymous: HUGE_PAGE_SIZE - PAGE_SIZE,
    },
    bytesByGroup: { 3: 10 * PAGE_SIZE, 0: 19 * PAGE_SIZE + HUGE_PAGE_SIZE },
  };

  test("prints as JSON what was saved", () => {
    const { exitCode, stdout } = run("inspect", checkpoint, "--json");
    expect(exitCode).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      ...expected,
      usedBytes: 29 * PAGE_SIZE + HUGE_PAGE_SIZE,
    });
  });

  test("lists every run and extent, as text and as JSON", () => {
    const { runList, extentList } = JSON.parse(
      run("inspect", checkpoint, "--json", "--list").stdout,
    );
    expect(runList.length).toBe(5);
    expect(runList[0]).toEqual({
      id: "main",
      start: 0,
      end: 10 * PAGE_SIZE,
      state: "used",
      refs: 1,
      kind: 3,
      group: 3,
    });
    expect(runList.at(-1)).toMatchObject({ state: "sub-released", refs: 0 });
    expect(extentList[1]).toEqual({
      id: "main",
      start: 15 * PAGE_SIZE,
      end: 16 * PAGE_SIZE,
      file: basename(onlyPageFile(checkpoint)),
      offset: 12 * PAGE_SIZE,
      codec: "raw",
    });
    const { stdout } = run("inspect", "--list", checkpoint);
    expect(stdout).toContain(`[0, ${10 * PAGE_SIZE})  used  refs 1  kind Tmpfs  group 3`);
    expect(stdout).toContain(`[${15 * PAGE_SIZE}, ${16 * PAGE_SIZE})  at ${12 * PAGE_SIZE}`);
  });

  test("prints text for people", () => {
    const { stdout } = run("inspect", checkpoint);
    for (const text of [
      "native",
      "1 for huge pages",
      "at most 2 a page",
      "56 KiB in 3 extents",
      "345 bytes",
      "17 80 KiB",
    ]) {
      expect(stdout).toContain(text);
    }
  });

  test.each(["small", "huge", "inline"])("reads gVisor's own checkpoint %s", (name) => {
    const expected = JSON.parse(readFileSync(join(fixtures, name, "expected.json"), "utf8")) as {
      live: { start: number; end: number; refs: number; huge: boolean }[];
      totalSize: number;
    };
    const found = JSON.parse(run("inspect", join(fixtures, name), "--json").stdout);
    expect(found.format).toBe("gvisor");
    expect(found.usedBytes).toBe(
      expected.live.reduce((sum, { start, end }) => sum + end - start, 0),
    );
    expect(found.maxReferences).toBe(Math.max(...expected.live.map(({ refs }) => refs)));
    expect((found.chunks.small + found.chunks.huge) * 2 ** 30).toBe(expected.totalSize);
  });

  test("refuses a directory without a checkpoint", () => {
    const { exitCode, stderr } = run("inspect", import.meta.dir);
    expect([exitCode, stderr]).toEqual([1, expect.stringContaining("There is no checkpoint")]);
    expect(run("inspect", checkpoint, "--format", "gvisor").stderr).toContain(
      "There is no gVisor checkpoint",
    );
  });
});

describe("verify", () => {
  test("exits with 0 for a good checkpoint of either format, and prints counts and bytes", () => {
    const { exitCode, stdout } = run("verify", checkpoint);
    expect(exitCode).toBe(0);
    expect(stdout).toContain("3 extents, 14 pages, 56 KiB read, 0 pages bad");
    for (const name of ["small", "huge", "inline"]) {
      const verdict = run("verify", join(fixtures, name));
      expect([verdict.exitCode, verdict.stdout]).toEqual([
        0,
        expect.stringContaining("no checksums"),
      ]);
    }
  });

  test("names every bad block by extent and offset, and exits with 1", () => {
    const directory = copy("bad-blocks");
    const pages = onlyPageFile(directory);
    for (const page of [2, 3, 4, 12]) overwrite(pages, page * PAGE_SIZE + 7);
    const { exitCode, stdout } = run("verify", directory, "--json");
    expect(exitCode).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({
      ok: false,
      pages: 14,
      badPages: 4,
      metadataErrors: [],
    });
    expect(JSON.parse(stdout).badBlocks).toEqual([
      {
        id: "main",
        extent: 0,
        file: basename(pages),
        offset: 2 * PAGE_SIZE,
        lengthBytes: 3 * PAGE_SIZE,
        memoryOffset: 2 * PAGE_SIZE,
        problem: "checksum",
      },
      {
        id: "main",
        extent: 1,
        file: basename(pages),
        offset: 12 * PAGE_SIZE,
        lengthBytes: PAGE_SIZE,
        memoryOffset: 15 * PAGE_SIZE,
        problem: "checksum",
      },
    ]);
    const text = run("verify", directory);
    expect(text.exitCode).toBe(1);
    expect(text.stdout).toContain(
      `extent 1, ${basename(pages)} offset ${12 * PAGE_SIZE}, ${PAGE_SIZE} bytes`,
    );
    expect(text.stdout).toContain("4 pages bad");
  });

  /** Where a section is in `meta`. */
  function sectionAt(id: number): number {
    const view = new DataView(new Uint8Array(readFileSync(join(checkpoint, "meta"))).buffer);
    for (let entry = HEADER_BYTES; ; entry += TABLE_ENTRY_BYTES)
      if (view.getUint32(entry, true) === id) return view.getFloat64(entry + 8, true);
  }

  const sectionsOf = (messages: readonly string[]) =>
    messages.map((message) => /section (\w+)/.exec(message)![1]);

  test("names each bad section, and still checks pages", () => {
    const directory = copy("bad-sections");
    for (const section of [Section.Chunks, Section.Runs, Section.UserData])
      overwrite(join(directory, "meta"), sectionAt(section));
    for (const page of [3, 4, 12]) overwrite(onlyPageFile(directory), page * PAGE_SIZE + 7);
    const { exitCode, stdout } = run("verify", directory, "--json");
    const { metadataErrors, badBlocks, pages, badPages } = JSON.parse(stdout);
    expect(exitCode).toBe(1);
    expect(sectionsOf(metadataErrors).toSorted()).toEqual(["chunks", "runs", "userData"]);
    expect([pages, badPages]).toEqual([14, 3]);
    expect(badBlocks).toMatchObject([
      { id: "main", extent: 0, offset: 3 * PAGE_SIZE, lengthBytes: 2 * PAGE_SIZE },
      { id: "main", extent: 1, offset: 12 * PAGE_SIZE },
    ]);
    const text = run("verify", directory).stdout;
    expect(text).toContain(`offset ${12 * PAGE_SIZE}, ${PAGE_SIZE} bytes, memory offset`);
    expect(text).toContain("metadata has 3 errors; 3 extents, 14 pages, 56 KiB read, 3 pages bad");
  });

  test("damaged columns are named, and pages are checked by the other one", () => {
    const directory = copy("bad-columns");
    overwrite(join(directory, "meta"), sectionAt(Section.PageCrcs) + 5);
    overwrite(onlyPageFile(directory), 12 * PAGE_SIZE);
    const one = JSON.parse(run("verify", directory, "--json").stdout);
    expect(sectionsOf(one.metadataErrors)).toEqual(["pageCrcs"]);
    expect(one.badBlocks).toMatchObject([{ offset: 12 * PAGE_SIZE, problem: "hash" }]);
    overwrite(join(directory, "meta"), sectionAt(Section.PageHashes) + 9);
    const both = JSON.parse(run("verify", directory, "--json").stdout);
    expect(sectionsOf(both.metadataErrors)).toEqual(["pageCrcs", "pageHashes"]);
    expect([both.ok, both.badBlocks]).toEqual([false, []]);
  });

  test("contents without extents or frames cannot be checked, which is an error", () => {
    for (const section of [Section.Extents, Section.Frames, Section.PageFiles]) {
      const directory = copy(`bad-map-${section}`);
      overwrite(join(directory, "meta"), sectionAt(section));
      const { metadataErrors, pages } = JSON.parse(run("verify", directory, "--json").stdout);
      expect([metadataErrors.length, pages]).toEqual([1, 0]);
    }
  });

  test("checks the rest behind a damaged header or table", () => {
    const directory = copy("bad-header");
    // The id in the header; a number in the table's first entry; the first byte of the runs.
    for (const at of [16, HEADER_BYTES + 8, sectionAt(Section.Runs)])
      overwrite(join(directory, "meta"), at);
    overwrite(onlyPageFile(directory), 12 * PAGE_SIZE);
    const verdict = JSON.parse(run("verify", directory, "--json").stdout);
    expect(verdict.metadataErrors.map((text: string) => text.replace(/ \(.*/, ""))).toEqual([
      "Header checksum does not match",
      "Section table checksum does not match",
      expect.stringContaining("is out of place"),
      "Section checksum does not match",
    ]);
    expect([verdict.pages, verdict.badPages]).toEqual([14, 1]);
  });

  test("names a block that cannot be read, and checks the others", () => {
    const directory = copy("unreadable");
    overwrite(onlyPageFile(directory), 12 * PAGE_SIZE);
    const preload = join(root, "unreadable.ts");
    writeFileSync(
      preload,
      `import { setFaultHook } from ${JSON.stringify(join(import.meta.dir, "../../ffi/index.ts"))};
       const [start, end] = [${5 * PAGE_SIZE}, ${6 * PAGE_SIZE}];
       setFaultHook((call, fd, offset, lengthBytes) =>
         call === "pread" && lengthBytes >= ${PAGE_SIZE} && offset < end &&
           offset + lengthBytes > start ? { errno: 5 } : undefined);`,
    );
    const { stdout, exitCode } = Bun.spawnSync([
      process.execPath,
      "--preload",
      preload,
      program,
      "verify",
      directory,
      "--json",
    ]);
    expect(exitCode).toBe(1);
    expect(JSON.parse(stdout.toString())).toMatchObject({
      pages: 14,
      badPages: 2,
      badBlocks: [
        { extent: 0, offset: 5 * PAGE_SIZE, lengthBytes: PAGE_SIZE, problem: "EIO" },
        { extent: 1, offset: 12 * PAGE_SIZE, problem: "checksum" },
      ],
    });
  });

  test("finds any wrong byte of the metadata, and a file that is cut short", () => {
    const { size } = Bun.file(join(checkpoint, "meta"));
    for (const offset of [0, 9, 13, 40, 60, 70, Math.floor(size / 2), size - 1]) {
      const directory = copy(`bad-meta-${offset}`);
      overwrite(join(directory, "meta"), offset);
      const { exitCode, stdout, stderr } = run("verify", directory);
      expect([exitCode, stderr]).toEqual([1, ""]);
      expect(stdout).toStartWith("BAD       metadata: ");
    }
    const short = copy("short");
    truncateSync(onlyPageFile(short), 13 * PAGE_SIZE);
    expect(run("verify", short)).toMatchObject({
      exitCode: 1,
      stdout: expect.stringContaining(`got ${13 * PAGE_SIZE}`),
    });
    expect(JSON.parse(run("verify", short, "--json").stdout)).toMatchObject({
      pages: 14,
      badBlocks: [
        { extent: 2, offset: 13 * PAGE_SIZE, lengthBytes: PAGE_SIZE, problem: "truncated" },
      ],
    });
    rmSync(onlyPageFile(short));
    expect(run("verify", short)).toMatchObject({
      exitCode: 1,
      stdout: expect.stringContaining("missing"),
    });
  });
});

describe("demo", () => {
  test("checkpoints, restores in a new process, and compares", () => {
    const directory = join(root, "demo");
    const { exitCode, stdout, stderr } = run("demo", "--size", "8", "--directory", directory);
    expect([exitCode, stderr]).toEqual([0, ""]);
    for (const text of [
      "First start",
      "checkpoint written",
      "Every later start",
      "answer 4",
      "all loaded: 8 MiB",
      "The answers are the same",
    ]) {
      expect(stdout).toContain(text);
    }
    expect(run("verify", directory).exitCode).toBe(0);
    // It never overwrites a checkpoint.
    expect(run("demo", "--directory", directory)).toMatchObject({
      exitCode: 2,
      stderr: expect.stringContaining("new or empty"),
    });
  });

  test("leaves nothing behind", () => {
    const directory = join(root, "temporary");
    const child = Bun.spawnSync([
      "sh",
      "-c",
      'mkdir "$2" && TMPDIR="$2" "$0" "$1" demo --size 1',
      process.execPath,
      program,
      directory,
    ]);
    expect(child.exitCode).toBe(0);
    expect(existsSync(directory)).toBe(true);
    expect([...new Bun.Glob("**").scanSync({ cwd: directory, onlyFiles: false })]).toEqual([]);
  });
});

test.each([
  [0, "0 bytes"],
  [1, "1 byte"],
  [1023, "1023 bytes"],
  [1536, "1.5 KiB"],
  [2 ** 30, "1 GiB"],
  [3 * 2 ** 50, "3072 TiB"],
])("%d bytes are written %s", (bytes, text) => expect(formatBytes(bytes)).toBe(text));
