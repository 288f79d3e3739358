/**
 * Rules of style as failing tests. Each rule lists its offenders as `file:line`. The idea is
 * TigerBeetle's tidy.zig.
 */
import { expect, test } from "bun:test";
import { basename } from "node:path";
import {
  files,
  isInComment,
  isRule,
  libraryFiles,
  linesMatching,
  placesMatching,
  sources,
  texts,
} from "./repository.ts";

test("the repository has library files", () => {
  expect(libraryFiles.length).toBeGreaterThan(5);
});

test("only ffi/ imports bun:ffi", () => {
  const others = sources.filter(
    (path) => (path.startsWith("src/") || path.startsWith("examples/")) && !isRule(path),
  );
  expect(linesMatching(others, /["']bun:ffi["']/)).toEqual([]);
});

test("no two files of src/ and ffi/ export a class or a type of one name", () => {
  const declaration = /^export (?:abstract )?(?:class|interface|type|enum) (\w+)/gm;
  const homes = new Map<string, string[]>();
  for (const path of libraryFiles) {
    for (const [, name] of texts.get(path)!.matchAll(declaration))
      homes.set(name!, [...(homes.get(name!) ?? []), path]);
  }
  expect(homes.size).toBeGreaterThan(300);
  expect([...homes].filter(([, paths]) => paths.length > 1)).toEqual([]);
});

test("only src/source looks at the kind of a page source", () => {
  const others = libraryFiles.filter((path) => !path.startsWith("src/source/"));
  expect(linesMatching(others, /\bsource\??\.kind\b/)).toEqual([]);
});

test("no file is named utils", () => {
  expect(files.filter((path) => /^(utils?|helpers?|misc)\./i.test(basename(path)))).toEqual([]);
});

test("every file of src/ and ffi/ begins with a doc comment", () => {
  const without = libraryFiles.filter(
    (path) => !/^(#![^\n]*\n)?\/\*\*[\s\S]{10,}?\*\//.test(texts.get(path)!),
  );
  expect(without).toEqual([]);
});

test("the library does not use what was measured to be a trap", () => {
  // A step on a growable buffer costs four times as much. Bun.mmap has no offset, ends at 4 GiB,
  // and only the garbage collector unmaps it.
  expect(linesMatching(libraryFiles, /\bmaxByteLength\b|\bBun\.mmap\(/)).toEqual([]);
  // A buffer over native memory must be detached before its memory is unmapped, so one file makes
  // them.
  const others = libraryFiles.filter((path) => path !== "ffi/memory.ts");
  expect(linesMatching(others, /\btoArrayBuffer\(/).filter((place) => !isInComment(place))).toEqual(
    [],
  );
});

test("nothing in the library prints, except the command line", () => {
  const quiet = libraryFiles.filter(
    (path) => !path.startsWith("src/cli/") && !path.startsWith("src/cli."),
  );
  expect(linesMatching(quiet, /\bconsole\.\w+\(/).filter((place) => !isInComment(place))).toEqual(
    [],
  );
});

test("nothing is caught and dropped", () => {
  const empty = /catch\s*(\([^)]*\))?\s*\{\s*((\/\/[^\n]*|\/\*[\s\S]*?\*\/)\s*)*\}/g;
  const dropped = /\.catch\(\s*(\(\s*\w*\s*\)|\w+)\s*=>\s*(\{\s*\}|undefined|null|void 0)\s*\)/g;
  const checked = sources.filter((path) => !isRule(path));
  expect([...placesMatching(checked, empty), ...placesMatching(checked, dropped)]).toEqual([]);
});

test("index.ts files of src/ and ffi/ only re-export", () => {
  const offenders = libraryFiles
    .filter((path) => basename(path) === "index.ts")
    .filter((path) => {
      const code = texts
        .get(path)!
        .replace(/\/\*[\s\S]*?\*\//g, "")
        .replace(/\/\/[^\n]*/g, "");
      return (
        code
          .replace(/export\s+(type\s+)?(\*(\s+as\s+\w+)?|\{[^}]*\})\s+from\s+"[^"]+"\s*;/g, "")
          .trim() !== ""
      );
    });
  expect(offenders).toEqual([]);
});

test("no file contains a path of one machine", () => {
  const checked = [...texts.keys()].filter((path) => !isRule(path) && path !== "package-lock.json");
  expect(linesMatching(checked, /(^|[\s"'`(=:])\/(work|home\/\w+|root|Users\/\w+)\/\w/)).toEqual(
    [],
  );
  // A path below /tmp in a program collides between runs: mkdtemp makes its own.
  const programs = checked.filter((path) => /\.(ts|js|mjs)$/.test(path));
  expect(linesMatching(programs, /["'`]\/tmp\/\w/)).toEqual([]);
});

test("nothing is left to do", () => {
  const checked = [...texts.keys()].filter(
    (path) => !isRule(path) && !path.startsWith("test/data/"),
  );
  expect(linesMatching(checked, /\b(TODO|FIXME|XXX|HACK)\b/)).toEqual([]);
});

test("no test is marked as the only one", () => {
  const tests = sources.filter((path) => path.startsWith("test/") && !isRule(path));
  expect(linesMatching(tests, /\b(test|it|describe)\.only\(/)).toEqual([]);
});

test("the lock file is complete and names no registry", () => {
  type Entry = { resolved?: string; link?: boolean } & Partial<
    Record<"dependencies" | "optionalDependencies", Record<string, string>>
  >;
  const lock = JSON.parse(texts.get("package-lock.json")!) as { packages: Record<string, Entry> };
  const entries = Object.entries(lock.packages);
  expect(
    entries
      .filter(([, { resolved, link }]) => resolved !== undefined && link !== true)
      .map(([path]) => path),
  ).toEqual([]);
  // `npm ci` refuses a lock file that lacks a platform's package, even one that it does not
  // install.
  const missing = entries
    .flatMap(([, { dependencies, optionalDependencies }]) =>
      Object.keys({ ...dependencies, ...optionalDependencies }),
    )
    .filter(
      (name) =>
        !entries.some(
          ([path]) => path === `node_modules/${name}` || path.endsWith(`/node_modules/${name}`),
        ),
    );
  expect(missing).toEqual([]);
});
