/**
 * Sizes, words and the order of folders. known.ts lists offenders that are not repaired yet. A
 * listed file without an offence fails the test too, so the list only shrinks.
 */
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { measureFunctions } from "./functions.ts";
import { KNOWN } from "./known.ts";
import { files, isRule, libraryFiles, root, sources, texts } from "./repository.ts";
import { folderOf, rowOf } from "./folders.ts";

const WIDTH_MAX = 100;
const FILE_LINES_MAX = 400;
const FUNCTION_LINES_MAX = 50;

/** Generated files, and data. */
const isMade = (path: string): boolean =>
  path.startsWith("test/data/") || path.startsWith("bench/results.");

/** Rows of tables, a single word such as a link, and a regular expression. */
const EXEMPT = /^\||^\s*\S+$|^\s*\/[^*/].*\/\w*[,;)]*$/;

type Offences = readonly { readonly path: string; readonly line: number }[];

/** Fails for an offender that known.ts does not list, and for a listed file without an offence. */
function expectOnlyKnown(rule: keyof typeof KNOWN, offences: Offences): void {
  const known = new Set(KNOWN[rule]);
  const places = offences.filter(({ path }) => !known.has(path));
  expect(places.map(({ path, line }) => `${path}:${line}`)).toEqual([]);
  const offenders = new Set(offences.map(({ path }) => path));
  const repaired = [...known].filter((path) => !offenders.has(path));
  expect(repaired, `remove these from KNOWN.${rule}`).toEqual([]);
}

function offencesOf(paths: readonly string[], offends: (line: string) => boolean): Offences {
  return paths.flatMap((path) =>
    texts
      .get(path)!
      .split("\n")
      .flatMap((line, index) => (offends(line) ? [{ path, line: index + 1 }] : [])),
  );
}

test(`no line is wider than ${WIDTH_MAX} columns, tables and links excepted`, () => {
  const paths = [...texts.keys()].filter(
    (path) => /\.(ts|md|go|sh)$|\/run$|^src\/.*\.(js|css)$/.test(path) && !isMade(path),
  );
  const isWide = (line: string): boolean => line.length > WIDTH_MAX && !EXEMPT.test(line);
  const isGo = (path: string): boolean => path.endsWith(".go");
  // Go's formatter leaves long lines of code alone; only comments count.
  const isWideComment = (line: string): boolean => isWide(line) && /^\s*\/\//.test(line);
  const code = paths.filter((path) => !isGo(path));
  const wide = [...offencesOf(code, isWide), ...offencesOf(paths.filter(isGo), isWideComment)];
  expectOnlyKnown("width", wide);
});

test(`no source file is longer than ${FILE_LINES_MAX} lines`, () => {
  const checked = sources.filter((path) => path !== "test/tidy/known.ts");
  const lengths = checked.map((path) => ({
    path,
    line: texts.get(path)!.trimEnd().split("\n").length,
  }));
  expectOnlyKnown(
    "lines",
    lengths.filter(({ line }) => line > FILE_LINES_MAX),
  );
});

test(`no function of src/ and ffi/ is longer than ${FUNCTION_LINES_MAX} lines`, () => {
  const sizes = libraryFiles.flatMap((path) =>
    measureFunctions(texts.get(path)!).map((size) => ({ path, ...size })),
  );
  expect(sizes.length).toBeGreaterThan(500);
  expectOnlyKnown(
    "functions",
    sizes.filter(({ lines }) => lines > FUNCTION_LINES_MAX),
  );
});

/** Words that make a sentence hard to read. `nobody` in backticks is a user of the system. */
const WORDS =
  /(?<!`)\b(nobody|somebody|anybody|whoever|whom)\b|\b(of whose|whatever of|affair)\b|\bstands\b(?! for)/i;
/** Phrases that a plainer word replaces: "sometimes", "repeatedly", "usually", "if necessary". */
const PHRASES =
  /\b(now and then|again and again|as a rule|sees? to it|for want of|tells? of|if need be|bit by bit)\b/i;

test("no text uses a word of the list of unclear words", () => {
  const paths = [...texts.keys()].filter(
    (path) => /\.(ts|md|sh)$/.test(path) && !isMade(path) && !isRule(path),
  );
  expectOnlyKnown(
    "words",
    offencesOf(paths, (line) => WORDS.test(line) || PHRASES.test(line)),
  );
});

/** The repository's files that a source imports, with the line. */
function importsOf(path: string): { target: string; line: number }[] {
  const text = texts.get(path)!;
  const pattern = /(?:^(?:import|export)\b[^;]*?from |\bimport\()\s*"(\.[^"]+)"/gm;
  return [...text.matchAll(pattern)].map((match) => ({
    target: join(dirname(path), match[1]!),
    line: text.slice(0, match.index).split("\n").length,
  }));
}

test("imports of src/ and ffi/ point downwards", () => {
  const offences = libraryFiles.flatMap((path) =>
    importsOf(path)
      .filter(
        ({ target }) => /^(src|ffi)\/.*\.ts$/.test(target) && folderOf(target) !== folderOf(path),
      )
      .filter(({ target }) => rowOf(target) >= rowOf(path))
      .map(({ line }) => ({ path, line })),
  );
  expectOnlyKnown("imports", offences);
});

test("no file of src/ and ffi/ imports itself through others", () => {
  const done = new Set<string>();
  const circles: Offences[number][] = [];
  const visit = (path: string, above: readonly string[]): void => {
    if (above.includes(path)) circles.push({ path, line: 1 });
    if (done.has(path) || above.includes(path)) return;
    for (const { target } of importsOf(path))
      if (libraryFiles.includes(target)) visit(target, [...above, path]);
    done.add(path);
  };
  for (const path of libraryFiles) visit(path, []);
  expectOnlyKnown("circles", circles);
});

test("links between documents lead to files", () => {
  const documents = [...texts.keys()].filter((path) => path.endsWith(".md") && !isMade(path));
  const dead = documents.flatMap((path) => {
    const prose = texts.get(path)!.replace(/^```[\s\S]*?^```/gm, "");
    return [...prose.matchAll(/\]\(([^)#\s]+)[^)]*\)/g)]
      .filter(([, target]) => !/^[a-z]+:/.test(target!))
      .filter(([, target]) => !existsSync(join(root, dirname(path), target!)))
      .map(([, target]) => `${path}: ${target}`);
  });
  expect(dead).toEqual([]);
});

test("KNOWN names files that exist", () => {
  const paths = Object.values(KNOWN).flat();
  expect(paths.filter((path) => !files.includes(path))).toEqual([]);
});

describe("measureFunctions", () => {
  test("finds functions, methods and arrows, and counts from the signature", () => {
    const text = [
      "export function one(",
      "  a: number,",
      "): void {",
      "  if (a > 1) {",
      "    a++;",
      "  }",
      "}",
      "class Two {",
      "  private async three<T>(b: T): Promise<T> {",
      "    return b;",
      "  }",
      "}",
      "const four = { five: 5 };",
      "const six = () => {",
      "};",
    ].join("\n");
    expect(measureFunctions(text)).toEqual([
      { line: 1, lines: 7 },
      { line: 9, lines: 3 },
      { line: 14, lines: 2 },
    ]);
  });
});
