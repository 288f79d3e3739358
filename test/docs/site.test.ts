/** `npm run docs`: the API reference and the guides as a site, built without a network. */
import { expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dir, "../..");
const typedoc = ["scripts/docs/node_modules/.bin/typedoc", "node_modules/.bin/typedoc"]
  .map((path) => join(root, path))
  .find((path) => existsSync(path));

test.skipIf(typedoc === undefined)(
  "npm run docs builds a page for each class and each guide",
  () => {
    const directory = mkdtempSync(join(tmpdir(), "pgalloc-site-"));
    try {
      const command = [process.execPath, typedoc!, "--options", "scripts/docs/typedoc.json"];
      const { exitCode, stderr } = Bun.spawnSync([...command, "--out", directory], { cwd: root });
      if (exitCode !== 0) throw new Error(stderr.toString());
      const index = readFileSync(join(directory, "index.html"), "utf8");
      expect(index).toContain("pgalloc");
      const guides = readdirSync(join(root, "docs")).filter((name) => name.endsWith(".md"));
      const pages = guides.map((name) => `documents/docs_${name.slice(0, -3)}.html`);
      pages.push("classes/src.MemoryFile.html", "classes/src_data.Store.html");
      expect(pages.filter((page) => !existsSync(join(directory, page)))).toEqual([]);
    } finally {
      rmSync(directory, { recursive: true });
    }
  },
  120_000,
);
