/**
 * House rules as failing tests: what a program can check about the sources, it checks here. The idea is TigerBeetle's
 * tidy.zig. Each rule lists its offenders as `file:line`, so that a failure says where to go.
 */
import { expect, test } from "bun:test";
import { readFileSync, statSync } from "node:fs";
import { basename, join } from "node:path";

const root = join(import.meta.dir, "../..");
const LINES_MAX = 570;
const self = "test/tidy/tidy.test.ts";

/** All files of the repository: tracked, and new ones that are not ignored, so that a rule speaks before the commit. */
function listFiles(): string[] {
  const listed = Bun.spawnSync(
    ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
    { cwd: root },
  );
  if (listed.exitCode !== 0) {
    // A tarball without history: the same files, by their folders.
    return [
      ...new Bun.Glob("{src,ffi,test,bench,examples,scripts,docs}/**/*").scanSync({
        cwd: root,
        dot: true,
      }),
    ]
      .concat([...new Bun.Glob("*.{md,json,toml}").scanSync({ cwd: root })])
      .filter((path) => !path.includes("node_modules/"));
  }
  return listed.stdout
    .toString()
    .split("\0")
    .filter((path) => path !== "");
}

const files = listFiles().filter(
  (path) => statSync(join(root, path), { throwIfNoEntry: false })?.isFile() === true,
);
const isText = (path: string): boolean =>
  /(\.(ts|js|mjs|json|md|toml|sh|yml|yaml|go|txt)|\/run|LICENSE)$/.test(path);
const texts = new Map(
  files.filter(isText).map((path) => [path, readFileSync(join(root, path), "utf8")]),
);
const sources = [...texts.keys()].filter((path) => path.endsWith(".ts"));
const libraryFiles = sources.filter((path) => path.startsWith("src/") || path.startsWith("ffi/"));

/** `file:line` of every line of `paths` that `pattern` matches. */
function linesMatching(paths: readonly string[], pattern: RegExp): string[] {
  return paths.flatMap((path) =>
    texts
      .get(path)!
      .split("\n")
      .flatMap((line, index) => (pattern.test(line) ? [`${path}:${index + 1}`] : [])),
  );
}

/** `file:line` where `pattern` (with the g flag) matches in the whole text. */
function placesMatching(paths: readonly string[], pattern: RegExp): string[] {
  return paths.flatMap((path) => {
    const text = texts.get(path)!;
    return [...text.matchAll(pattern)].map(
      (match) => `${path}:${text.slice(0, match.index).split("\n").length}`,
    );
  });
}

test("there is something to check", () => {
  expect(libraryFiles.length).toBeGreaterThan(5);
});

test("only ffi/ imports bun:ffi", () => {
  const others = sources.filter(
    (path) => (path.startsWith("src/") || path.startsWith("examples/")) && path !== self,
  );
  expect(linesMatching(others, /["']bun:ffi["']/)).toEqual([]);
});

test("no file is named utils", () => {
  expect(files.filter((path) => /^(utils?|helpers?|misc)\./i.test(basename(path)))).toEqual([]);
});

test(`no source file is longer than ${LINES_MAX} lines`, () => {
  const long = sources
    .map((path) => ({ path, lines: texts.get(path)!.trimEnd().split("\n").length }))
    .filter(({ lines }) => lines > LINES_MAX);
  expect(long).toEqual([]);
});

test("every file of src/ and ffi/ begins with a doc comment", () => {
  const without = libraryFiles.filter(
    (path) => !/^(#![^\n]*\n)?\/\*\*[\s\S]{10,}?\*\//.test(texts.get(path)!),
  );
  expect(without).toEqual([]);
});

test("what was measured to be a trap is not used by the library", () => {
  // Growable buffers cost four times as much a step; Bun.mmap has no offset, ends at 4 GiB and is unmapped by the collector alone.
  expect(linesMatching(libraryFiles, /\bmaxByteLength\b|\bBun\.mmap\(/)).toEqual([]);
  // A buffer over native memory must be detached before its memory is unmapped; who may make one is in one place.
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

/** True for a line of a comment: an example in a doc comment may print. */
function isInComment(place: string): boolean {
  const colon = place.lastIndexOf(":");
  const line = texts.get(place.slice(0, colon))!.split("\n")[Number(place.slice(colon + 1)) - 1]!;
  return /^\s*(\*|\/\/)/.test(line);
}

test("nothing is caught and dropped", () => {
  const empty = /catch\s*(\([^)]*\))?\s*\{\s*((\/\/[^\n]*|\/\*[\s\S]*?\*\/)\s*)*\}/g;
  const dropped = /\.catch\(\s*(\(\s*\w*\s*\)|\w+)\s*=>\s*(\{\s*\}|undefined|null|void 0)\s*\)/g;
  const checked = sources.filter((path) => path !== self);
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

test("no path of one machine stands in a file", () => {
  const checked = [...texts.keys()].filter((path) => path !== self && path !== "package-lock.json");
  expect(linesMatching(checked, /(^|[\s"'`(=:])\/(work|home\/\w+|root|Users\/\w+)\/\w/)).toEqual(
    [],
  );
  // A path below /tmp in a program collides between runs: mkdtemp makes its own.
  const programs = checked.filter((path) => /\.(ts|js|mjs)$/.test(path));
  expect(linesMatching(programs, /["'`]\/tmp\/\w/)).toEqual([]);
});

test("nothing is left to do", () => {
  const checked = [...texts.keys()].filter(
    (path) => path !== self && !path.startsWith("test/data/"),
  );
  expect(linesMatching(checked, /\b(TODO|FIXME|XXX|HACK)\b/)).toEqual([]);
});

test("no test is marked as the only one", () => {
  const tests = sources.filter((path) => path.startsWith("test/") && path !== self);
  expect(linesMatching(tests, /\b(test|it|describe)\.only\(/)).toEqual([]);
});

test("the lock file is complete and names no registry", () => {
  type Entry = { resolved?: string; link?: boolean } & Partial<
    Record<"dependencies" | "optionalDependencies", Record<string, string>>
  >;
  const lock = JSON.parse(texts.get("package-lock.json")!) as { packages: Record<string, Entry> };
  const entries = Object.entries(lock.packages);
  expect(
    entries.filter(([, { resolved }]) => resolved !== undefined).map(([path]) => path),
  ).toEqual([]);
  // `npm ci` refuses a lock file in which a platform's package is missing, even if another platform's is the one used.
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
