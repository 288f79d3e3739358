/** Ranges of a real web server, directly and through a proxy with latency and faults. */
import { afterAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { pattern } from "../aio/support/memory.ts";
import { filledFile } from "../remote/support/store.ts";
import { httpServers } from "./support/environment.ts";

const PAGES = 30_000;
afterAll(() => terminateIdleThreads());

for (const { title, url, directory } of httpServers()) {
  describe(title, () => {
    test("loadFrom restores a directory while a web server serves it", async () => {
      const name = crypto.randomUUID();
      using made = filledFile(PAGES);
      await made.saveTo(join(directory, name));
      using file = await MemoryFile.loadFrom(`${url}/${name}`, { background: true });
      const last = { start: (PAGES - 1) * PAGE_SIZE, end: PAGES * PAGE_SIZE };
      await file.awaitLoad(last);
      const expected = pattern(PAGES * PAGE_SIZE);
      expect(Buffer.compare(file.view(last), expected.subarray(-PAGE_SIZE))).toBe(0);
      await file.awaitLoad();
      const contents = file.view({ start: 0, end: expected.length });
      expect(Buffer.compare(contents, expected)).toBe(0);
    });
  });
}
