/** Directories by their descriptor: listing, making, refusing. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errnoNumber, listDirectory, makeDirectory, setFaultHook } from "../../ffi/index.ts";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "pgalloc-directory-"));
});
afterEach(() => {
  setFaultHook(undefined);
  rmSync(root, { recursive: true });
});

test("listDirectory lists the same names as readdir, in small and large directories", () => {
  const fd = openSync(root, "r");
  expect(listDirectory(fd)).toEqual([]);
  const names = ["z", "x".repeat(255), "größe", "日本語", ".hidden", "a b\nc"];
  for (const name of names) writeFileSync(join(root, name), "");
  mkdirSync(join(root, "folder"));
  for (let i = 0; i < 3000; i++) writeFileSync(join(root, `file-${i}`), "");
  const before = readdirSync(root).sort();
  expect(listDirectory(fd).sort()).toEqual(before);
  expect(before.length).toBe(3007);
  // Again from the start: the same directory under another name.
  renameSync(root, `${root}-moved`);
  mkdirSync(root);
  expect(listDirectory(fd).sort()).toEqual(before);
  closeSync(fd);
  rmSync(`${root}-moved`, { recursive: true });
});

test("listDirectory throws an error with a code for a file, and when a call fails", () => {
  writeFileSync(join(root, "file"), "");
  const fd = openSync(join(root, "file"), "r");
  expect(() => listDirectory(fd)).toThrow(
    expect.objectContaining({ code: "ENOTDIR", syscall: "getdents" }),
  );
  closeSync(fd);
  setFaultHook((call) =>
    call === "getdents" || call === "mkdir" ? { errno: errnoNumber("EIO") } : undefined,
  );
  const directory = openSync(root, "r");
  expect(() => listDirectory(directory)).toThrow(expect.objectContaining({ code: "EIO" }));
  expect(() => makeDirectory(join(root, "new"), 0o700)).toThrow(
    expect.objectContaining({ code: "EIO", syscall: "mkdir" }),
  );
  closeSync(directory);
});

test("makeDirectory makes a directory with its mode, and names a path in its way", () => {
  makeDirectory(join(root, "new"), 0o700);
  expect(statSync(join(root, "new")).mode & 0o777).toBe(0o700);
  expect(() => makeDirectory(join(root, "new"), 0o700)).toThrow(
    expect.objectContaining({ code: "EEXIST" }),
  );
  expect(() => makeDirectory(join(root, "a/b"), 0o700)).toThrow(
    expect.objectContaining({ code: "ENOENT" }),
  );
  expect(() => makeDirectory("a\0b", 0o700)).toThrow(TypeError);
});
