/** docs/memory-order.md names tests by the beginning of their titles. */
import { expect, test } from "bun:test";
import { join } from "node:path";

const root = join(import.meta.dir, "../..");

test("docs/memory-order.md names tests that exist", async () => {
  const text = (await Bun.file(join(root, "docs/memory-order.md")).text()).replace(/\s+/g, " ");
  const names = [...text.matchAll(/(?<![\w`])_([^_`]+?)_(?!\w)/g)]
    .flatMap(([, names]) => names!.split(";"))
    .map((name) => name.trim().replace(/ …$/, ""))
    .filter((name) => name.includes(" "));
  expect(names.length).toBeGreaterThan(15);
  let titles = "";
  for (const path of new Bun.Glob("test/{threads,load,segment,control}/*.test.ts").scanSync(root))
    titles += await Bun.file(join(root, path)).text();
  expect(names.filter((name) => !titles.includes(name))).toEqual([]);
});
