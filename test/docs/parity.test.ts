/**
 * docs/parity.md has a row for every exported identifier of gVisor's packages, and no row for an
 * identifier that does not exist.
 */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dir, "../..");
// What `go doc -all` lists: package, identifier.
const exported = readFileSync(join(root, "test/data/gvisor/exports.txt"), "utf8")
  .trim()
  .split("\n");
const document = readFileSync(join(root, "docs/parity.md"), "utf8");

/** The names in the first cells of a package's tables. */
const named = new Set(
  document.split(/^## /m).flatMap((section) => {
    const name = /^pkg\/(?:\w+\/)*(\w+)/.exec(section)?.[1];
    const rows = section.split("\n").filter((line) => line.startsWith("|"));
    return rows.flatMap((row) =>
      [...row.split("|")[1]!.matchAll(/`([^`]+)`/g)].map(
        ([, identifier]) => `${name} ${identifier}`,
      ),
    );
  }),
);

test("docs/parity.md has a row for every identifier", () => {
  expect(exported.length).toBeGreaterThan(250);
  expect(exported.filter((identifier) => !named.has(identifier))).toEqual([]);
});

test("docs/parity.md has only rows of existing identifiers, each with a verdict", () => {
  expect([...named].filter((identifier) => !exported.includes(identifier))).toEqual([]);
  const rows = document.split("\n").filter((line) => line.startsWith("| `"));
  for (const row of rows) expect(row.split("|")[3]!.trim()).toMatch(/^(same|\*\*better\*\*|not)$/);
  expect(
    rows.filter((row) => row.split("|")[3]!.trim() === "not" && row.split("|")[4]!.trim() === ""),
  ).toEqual([]);
});
