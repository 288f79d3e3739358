/** llms.txt is generated when the package is packed; here it is generated to standard output. */
import { expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import * as pgalloc from "../../src/index.ts";

const root = join(import.meta.dir, "../..");

test("scripts/llms.ts lists every document and every public name", () => {
  const { exitCode, stdout, stderr } = Bun.spawnSync(
    [process.execPath, "scripts/llms.ts", "--print"],
    { cwd: root },
  );
  expect(stderr.toString()).toBe("");
  expect(exitCode).toBe(0);
  const text = stdout.toString();
  const documents = readdirSync(join(root, "docs")).filter((name) => name.endsWith(".md"));
  expect(documents.filter((name) => !text.includes(`(docs/${name})`))).toEqual([]);
  expect(Object.keys(pgalloc).filter((name) => !text.includes(`- \`${name}\``))).toEqual([]);
  // An editor shows the same text where a program uses the name.
  expect(text.match(/^- `\w+`$/gm)).toBeNull();
});
