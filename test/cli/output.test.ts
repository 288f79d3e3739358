/** What the tool writes: output that fails is an error, and files of another origin stay. */
import { expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { checkpoint, copy, program, root, run, useSample } from "./support/tool.ts";

useSample();

/** Runs `pgalloc ARGUMENTS` in a shell, with what follows. */
function shell(args: string, rest: string): { exitCode: number; stderr: string } {
  const child = Bun.spawnSync(
    ["sh", "-c", `"$1" "$2" ${args} ${rest}`, "sh", process.execPath, program],
    {
      cwd: root,
      stderr: "pipe",
    },
  );
  return { exitCode: child.exitCode, stderr: child.stderr.toString() };
}

test
  .skipIf(!existsSync("/dev/full"))
  .each([
    "verify checkpoint",
    "verify checkpoint --json",
    "inspect checkpoint",
    "inspect checkpoint --json",
    "--help",
    "--version",
  ])("%s > /dev/full fails", (args) => {
  expect(shell(args, "> /dev/full")).toEqual({
    exitCode: 1,
    stderr: expect.stringContaining("pgalloc: ENOSPC"),
  });
});

test("a closed pipe ends the tool without a message", () => {
  expect(shell("inspect checkpoint --json", "| true").stderr).toBe("");
});

test("map never replaces a file that is no HTML", () => {
  const directory = copy("mapped");
  const meta = join(directory, "meta");
  const before = readFileSync(meta);
  const { exitCode, stderr } = run("map", directory, "--out", meta);
  expect(exitCode).toBe(2);
  expect(stderr).toBe(
    `pgalloc: Expected --out to be a new file, or an HTML file to replace, got "${meta}"\n`,
  );
  expect(readFileSync(meta)).toEqual(before);
  const page = join(root, "page.html");
  for (const _ of [1, 2]) expect(run("map", directory, "--out", page).exitCode).toBe(0);
});

test("copy never replaces a file meta of another origin", () => {
  const directory = join(root, "foreign");
  mkdirSync(directory);
  writeFileSync(join(directory, "meta"), "notes");
  const { exitCode, stderr } = run("copy", checkpoint, directory);
  expect(exitCode).toBe(1);
  expect(stderr).toContain(`Cannot replace '${join(directory, "meta")}'`);
  expect(readFileSync(join(directory, "meta"), "utf8")).toBe("notes");
});
