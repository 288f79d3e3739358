/** Runs the command line tool as a user does: a process with arguments, output and an exit code. */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { onlyPageFile } from "../checkpoint/support/page-files.ts";
import packageJson from "../../package.json" with { type: "json" };
import { formatBytes } from "../../src/cli/bytes.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../../src/index.ts";
import { program, fixtures, root, checkpoint, run, useSample } from "./support/tool.ts";

useSample();

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
      // Each flag of the usage has a line with its meaning.
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
    [["inspect", "ftp://host/x"], 'got "ftp://host/x"'],
    [["list", "a"], "Expected a URL as s3://"],
    [["inspect", import.meta.path], `got the file "${import.meta.path}"`],
    [["map", "s3://bucket/index", "--out", "a.html"], "Expected DIR to be a directory"],
    [["prune", "s3://xx/y", "--keep", "1"], 'got "xx"'],
  ] as [string[], string][])("exits with 2 for %j", (args, message) => {
    const { exitCode, stdout, stderr } = run(...args);
    expect(stderr).toContain(message);
    expect(stderr).not.toContain("    at ");
    expect([exitCode, stdout]).toEqual([2, ""]);
  });

  test("shows the help of the command alone for its wrong arguments", () => {
    const { stderr } = run("prune", "s3://bucket/index");
    expect(stderr).toContain("--min-age HOURS  keep");
    expect(stderr).not.toContain("pgalloc inspect");
    expect(run("frobnicate").stderr).toContain("pgalloc inspect");
  });

  test("exits with 1 and without a stack for a missing directory", () => {
    for (const command of ["inspect", "verify"]) {
      const { exitCode, stderr } = run(command, join(root, "nowhere"));
      expect(exitCode).toBe(1);
      expect(stderr).toContain(`There is no checkpoint in '${join(root, "nowhere")}'`);
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

  test("prints the checkpoint as JSON", () => {
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

  test("prints the checkpoint as text", () => {
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
])("formatBytes(%d) is %s", (bytes, text) => expect(formatBytes(bytes)).toBe(text));
