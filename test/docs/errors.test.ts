/** The documents about errors: each code of the library is in both. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { PGALLOC_ERROR_CODES } from "../../src/errors/codes.ts";

const root = join(import.meta.dir, "../..");

/** Code by class, as the sources declare them. */
async function declaredCodes(): Promise<Map<string, string>> {
  const declared = new Map<string, string>();
  for (const path of new Bun.Glob("{src,ffi}/**/*.ts").scanSync({ cwd: root })) {
    // Errors of http/ are causes of a RemoteError.
    if (path.startsWith("src/http/")) continue;
    const text = await Bun.file(join(root, path)).text();
    for (const [, name, body] of text.matchAll(/class (\w+) extends \w+ \{([\s\S]*?)\n\}/g)) {
      // A class may have its cause's code, and its own for causes without one.
      const code = /(?:readonly code = |this\.code = .*: )"(\w+)"/.exec(body!)?.[1];
      if (code !== undefined) declared.set(name!, code);
    }
  }
  return declared;
}

test("PgallocErrorCode has the code of each error class, and no other", async () => {
  const codes = [...(await declaredCodes()).values()];
  expect(codes.length).toBeGreaterThan(10);
  expect([...new Set(codes)].sort()).toEqual([...PGALLOC_ERROR_CODES].sort());
});

test("docs/errors.md lists each code with its class, in order", async () => {
  const text = await Bun.file(join(root, "docs/errors.md")).text();
  const listed = [...text.matchAll(/^\| `(\w+)`\s*\| `(\w+)`/gm)].map(([, code, name]) => [
    code,
    name,
  ]);
  const declared = [...(await declaredCodes())].map(([name, code]) => [code, name]).sort();
  expect(listed).toEqual(declared);
});

test("docs/troubleshooting.md names each code", async () => {
  const text = await Bun.file(join(root, "docs/troubleshooting.md")).text();
  expect(PGALLOC_ERROR_CODES.filter((code) => !text.includes(`\`${code}\``))).toEqual([]);
});
