/** The option `mode`: who may read what a save writes. */
import { afterAll, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Store } from "../../src/data/index.ts";
import { exportTo } from "../../src/gvisor/index.ts";
import { MemoryFile, saveAll } from "../../src/index.ts";

const INDEX = JSON.stringify(join(import.meta.dir, "../../src/index.ts"));
const root = mkdtempSync(join(tmpdir(), "pgalloc-mode-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
chmodSync(root, 0o755);
const file = MemoryFile.create();
file.view(file.allocate(4096)).fill(7);
const modeOf = (path: string) => (statSync(path).mode & 0o777).toString(8);
const modesIn = (path: string) => readdirSync(path).map((name) => modeOf(join(path, name)));

const writers: Record<string, (where: string, mode: number | undefined) => Promise<unknown>> = {
  saveTo: (where, mode) => file.saveTo(where, { mode }),
  saveAll: (where, mode) => saveAll(where, { file }, { mode }),
  compact: (where, mode) => file.compact(where, { mode }),
  exportTo: (where, mode) => exportTo(file, where, { mode }),
  "Store.open": async (where, mode) => {
    await using _ = await Store.open(where, { create: true, mode });
  },
};

test.each(Object.entries(writers))(
  "%s gives files and directories the mode",
  async (name, write) => {
    const where = join(root, name, "below");
    await write(where, 0o640);
    expect(new Set(modesIn(where))).toEqual(new Set(["640"]));
    expect([modeOf(where), modeOf(join(root, name))]).toEqual(["750", "750"]);
    const closed = join(root, `${name}-closed`);
    await write(closed, undefined);
    expect(new Set(modesIn(closed))).toEqual(new Set(["600"]));
    expect(modeOf(closed)).toBe("700");
  },
);

test.each(Object.entries(writers))("%s refuses what is no mode", async (name, write) => {
  const where = join(root, `${name}-refused`);
  await expect(write(where, 0o1000)).rejects.toThrow("Expected mode to be an integer in [0, 511]");
  await expect(write(where, "644" as never)).rejects.toThrow("Expected mode to be a number");
  expect(readdirSync(root)).not.toContain(`${name}-refused`);
});

// Another user exists for root only.
test.skipIf(process.getuid!() !== 0)("another user's process loads what mode allows", async () => {
  const load = (where: string) =>
    Bun.spawnSync({
      cmd: [
        "setpriv",
        "--reuid",
        "65534",
        "--clear-groups",
        process.execPath,
        "-e",
        `const { MemoryFile } = await import(${INDEX});
         const file = await MemoryFile.loadFrom(${JSON.stringify(where)}, { background: true });
         await file.awaitLoad();
         console.log(file.view({ start: 0, end: 4096 })[0]);
         process.exit(0);`,
      ],
      env: { ...process.env, HOME: "/tmp" },
    });
  const [open, closed] = [join(root, "open"), join(root, "closed")];
  await file.saveTo(open, { mode: 0o644 });
  await file.saveTo(closed);
  expect(load(open).stdout.toString()).toBe("7\n");
  expect(load(closed).stderr.toString()).toContain("EACCES");
});
