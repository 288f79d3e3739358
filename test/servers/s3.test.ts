/**
 * S3 of a real server, directly and through a proxy with latency and faults. Runs if
 * scripts/test-s3.ts has started the servers.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { copyCheckpoint } from "../../src/remote/copy.ts";
import { openPlace } from "../../src/remote/place.ts";
import { prune } from "../../src/remote/prune.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { pattern } from "../aio/support/memory.ts";
import { filledFile } from "../remote/support/store.ts";
import { removeTree, s3Servers, temporaryDirectory } from "./support/environment.ts";

const DAY_MS = 24 * 3_600_000;
afterAll(() => terminateIdleThreads());

for (const { title, s3 } of s3Servers()) {
  describe(title, () => {
    const where = `s3://bucket/test-${crypto.randomUUID()}`;

    test("saveTo, refresh, copy and prune work with the server", async () => {
      using file = filledFile(12_000);
      const options = { s3, compression: "none", incremental: true } as const;
      await file.saveTo(where, options);
      for (let i = 0; i < 3; i++) {
        file.view({ start: i * PAGE_SIZE, end: (i + 1) * PAGE_SIZE }).fill(i + 1);
        await file.saveTo(where, options);
      }
      const directory = temporaryDirectory();
      expect(await copyCheckpoint(where, directory, { s3 })).toMatchObject({ pageFiles: 4 });
      using copy = await MemoryFile.loadFrom(directory);
      const expected = pattern(12_000 * PAGE_SIZE);
      for (let i = 0; i < 3; i++) expected.fill(i + 1, i * PAGE_SIZE, (i + 1) * PAGE_SIZE);
      const contents = copy.view({ start: 0, end: expected.length });
      expect(Buffer.compare(contents, expected)).toBe(0);
      const { bucket } = await openPlace(where, { s3 });
      const report = await prune(bucket!, { keep: 2 }, Date.now() + 2 * DAY_MS);
      expect(report).toMatchObject({ kept: [4, 3], removedCheckpoints: [2, 1] });
      removeTree(directory);
    });

    test("saveTo of many writers succeeds once a round", async () => {
      const place = `${where}-race`;
      const files = Array.from({ length: 6 }, (_, i) => filledFile(8, i + 1));
      let published = 0;
      for (let round = 0; round < 3; round++) {
        for (const file of files) file.view({ start: 0, end: PAGE_SIZE }).fill(round);
        const results = await Promise.allSettled(files.map((file) => file.saveTo(place, { s3 })));
        const failed = results.filter((result) => result.status === "rejected");
        for (const { reason } of failed) expect(reason.code).toBe("ERR_CHECKPOINT_CONFLICT");
        published += results.length - failed.length;
        expect(failed.length).toBeLessThan(files.length);
      }
      const { bucket } = await openPlace(place, { s3 });
      const report = await prune(bucket!, { keep: 1 }, Date.now() + 2 * DAY_MS);
      expect(report.kept).toEqual([published]);
      const left: string[] = [];
      for await (const { key } of bucket!.list(bucket!.place.prefix)) left.push(key);
      expect(left.length).toBe(2);
      for (const file of files) file.destroy();
    });
  });
}
