/**
 * The end of every queue: which operations it cancels, which descriptors it closes, and whether the
 * process stays alive.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { closeSync, openSync, writeFileSync, writeSync } from "node:fs";
import { createQueue } from "../../src/aio/index.ts";
import { DestroyedError } from "../../src/errors/errors.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { NativeMemory, pattern, TemporaryDirectory } from "./support/memory.ts";
import { PIECE, kinds, openFds } from "./support/kinds.ts";

afterAll(() => terminateIdleThreads());

for (const { kind, unavailable } of kinds) {
  const title =
    unavailable === null ? `${kind} queue` : `${kind} queue (not available here: ${unavailable})`;
  describe.skipIf(unavailable !== null)(title, () => {
    const make = (capacity = 8) => createQueue(kind, { capacity, threads: 2 });

    describe("destroy", () => {
      test("cancels operations that have not started, ends waits, and is idempotent", async () => {
        using directory = new TemporaryDirectory();
        using memory = new NativeMemory(PIECE);
        writeFileSync(directory.file("data"), pattern(PIECE));
        const fd = openSync(directory.file("data"), "r");
        const queue = make();
        for (let i = 0; i < 8; i++) queue.read(i, fd, memory.address, PIECE, 0);
        await Promise.all([queue.destroy(), queue.destroy()]);
        expect(() => queue.read(1, fd, memory.address, 1, 0)).toThrow(DestroyedError);
        expect(() => queue.wait(0)).toThrow(DestroyedError);
        await expect(queue.waitAsync(0)).rejects.toBeInstanceOf(DestroyedError);
        await queue.destroy();
        closeSync(fd);
      });

      if (kind === "uring")
        test("cancels a read that blocks, which then does not write to memory", async () => {
          using directory = new TemporaryDirectory();
          using memory = new NativeMemory(PIECE);
          Bun.spawnSync(["mkfifo", directory.file("pipe")]);
          const pipe = openSync(directory.file("pipe"), "r+");
          const queue = make();
          queue.read(1, pipe, memory.address, 10, 0);
          const rejected = queue.waitAsync(1).catch((error: unknown) => error);
          await Bun.sleep(20);
          await queue.destroy();
          expect(await rejected).toBeInstanceOf(DestroyedError);
          memory.bytes.fill(0);
          writeSync(pipe, pattern(10));
          await Bun.sleep(20);
          expect(memory.bytes.every((byte) => byte === 0)).toBe(true);
          closeSync(pipe);
        });

      test("leaves no descriptor behind", async () => {
        using directory = new TemporaryDirectory();
        using memory = new NativeMemory(PIECE);
        writeFileSync(directory.file("data"), pattern(PIECE));
        const fd = openSync(directory.file("data"), "r");
        const round = async () => {
          const queue = make();
          for (let i = 0; i < 4; i++) queue.read(i, fd, memory.address, PIECE, 0);
          await queue.waitAsync(2);
          await queue.destroy();
        };
        await round();
        const before = openFds();
        for (let i = 0; i < 20; i++) await round();
        // The runtime starts and ends threads with descriptors of their own.
        expect(openFds()).toBeLessThan(before + 10);
        closeSync(fd);
      });
    });

    test("lets a queue keep the process alive only while a wait is pending", async () => {
      const program = `
        import { openSync } from "node:fs";
        import { mapAnonymous } from "${import.meta.dir}/../../ffi/index.ts";
        import { createQueue } from "${import.meta.dir}/../../src/aio/index.ts";
        const queue = createQueue("${kind}");
        const fd = openSync(process.execPath, "r");
        queue.read(1, fd, mapAnonymous(1 << 24), 1 << 24, 0);
        void queue.waitAsync(1).then(({ results }) => console.log("read", results[0]));`;
      const child = Bun.spawn([process.execPath, "-e", program], {
        stdout: "pipe",
        stderr: "inherit",
        timeout: 20_000,
      });
      expect(await new Response(child.stdout).text()).toBe(`read ${1 << 24}\n`);
      expect(await child.exited).toBe(0);
    });
  });
}
