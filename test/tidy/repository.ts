/** The repository's files and their text, for the tests that check the rules of style. */
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";

export const root = join(import.meta.dir, "../..");

/** Tracked files, and new files that git does not ignore, so a rule fails before the commit. */
function listFiles(): string[] {
  const command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"];
  const listed = Bun.spawnSync(command, { cwd: root });
  if (listed.exitCode === 0)
    return listed.stdout
      .toString()
      .split("\0")
      .filter((path) => path !== "");
  // A tarball has no history, so this takes the folders of sources.
  const folders = new Bun.Glob("{src,ffi,test,bench,examples,scripts,docs}/**/*");
  return [...folders.scanSync({ cwd: root, dot: true })]
    .concat([...new Bun.Glob("*.{md,json,toml}").scanSync({ cwd: root })])
    .filter((path) => !path.includes("node_modules/"));
}

const isText = (path: string): boolean =>
  /(\.(ts|js|mjs|json|md|toml|sh|yml|yaml|go|txt)|\/run|LICENSE)$/.test(path);

export const files = listFiles().filter(
  (path) => statSync(join(root, path), { throwIfNoEntry: false })?.isFile() === true,
);
export const texts: ReadonlyMap<string, string> = new Map(
  files.filter(isText).map((path) => [path, readFileSync(join(root, path), "utf8")]),
);
export const sources = [...texts.keys()].filter((path) => path.endsWith(".ts"));
export const libraryFiles = sources.filter((path) => /^(src|ffi)\//.test(path));

/** A file that states a rule quotes the forbidden words. */
export const isRule = (path: string): boolean => path.startsWith("test/tidy/");

/** `file:line` of every line of `paths` that `pattern` matches. */
export function linesMatching(paths: readonly string[], pattern: RegExp): string[] {
  return paths.flatMap((path) =>
    texts
      .get(path)!
      .split("\n")
      .flatMap((line, index) => (pattern.test(line) ? [`${path}:${index + 1}`] : [])),
  );
}

/** `file:line` of every match of `pattern`, which has the g flag, in whole texts. */
export function placesMatching(paths: readonly string[], pattern: RegExp): string[] {
  return paths.flatMap((path) => {
    const text = texts.get(path)!;
    return [...text.matchAll(pattern)].map(
      (match) => `${path}:${text.slice(0, match.index).split("\n").length}`,
    );
  });
}

/** True if the place is a line of a comment: an example in a doc comment may print. */
export function isInComment(place: string): boolean {
  const colon = place.lastIndexOf(":");
  const line = texts.get(place.slice(0, colon))!.split("\n")[Number(place.slice(colon + 1)) - 1]!;
  return /^\s*(\*|\/\/)/.test(line);
}
