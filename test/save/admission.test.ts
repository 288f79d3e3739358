/** Hundreds of saves at once take few threads and descriptors, and all of them succeed. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exportTo } from "../../src/gvisor/index.ts";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";

const root = mkdtempSync(join(tmpdir(), "pgalloc-admission-"));
afterAll(() => rmSync(root, { recursive: true }));
const count = (what: "task" | "fd") => readdirSync(`/proc/self/${what}`).length;
const file = MemoryFile.create();
file.view(file.allocate(64 * PAGE_SIZE)).fill(1);

const writers: Record<string, (where: string, signal?: AbortSignal) => Promise<unknown>> = {
  saveTo: (where, signal) => file.saveTo(where, { signal }),
  exportTo: (where, signal) => exportTo(file, where, { signal }),
};

test.each(Object.entries(writers))(
  "200 calls of %s at once take few threads",
  async (name, write) => {
    const before = { task: count("task"), fd: count("fd") };
    const most = { ...before };
    const timer = setInterval(() => {
      for (const what of ["task", "fd"] as const) most[what] = Math.max(most[what], count(what));
    }, 1);
    await Promise.all(Array.from({ length: 200 }, (_, i) => write(join(root, `${name}${i}`))));
    clearInterval(timer);
    expect(most.task - before.task).toBeLessThan(40);
    expect(most.fd - before.fd).toBeLessThan(200);
  },
  60_000,
);

test.each(Object.entries(writers))(
  "%s that waits for its turn ends by its signal",
  async (name, write) => {
    const first = Array.from({ length: 8 }, (_, i) => write(join(root, `${name}-first${i}`)));
    const controller = new AbortController();
    const last = write(join(root, `${name}-last`), controller.signal);
    const reason = new Error("enough");
    controller.abort(reason);
    await expect(last).rejects.toBe(reason);
    await Promise.all(first);
    expect(readdirSync(root)).not.toContain(`${name}-last`);
    await write(join(root, `${name}-later`));
  },
);
