/** Every wait ends: with its signal, or at destroy(). */
import { expect, test } from "bun:test";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";

test("released and waitForEvictions reject with the reason of an aborted signal", async () => {
  using file = MemoryFile.create({ delayedEviction: "manual" });
  const reason = new Error("enough");
  const aborted = AbortSignal.abort(reason);
  await expect(file.released({ signal: aborted })).rejects.toBe(reason);
  await expect(file.waitForEvictions({ signal: aborted })).rejects.toBe(reason);
  await expect(file.awaitLoad(undefined, { signal: aborted })).rejects.toBe(reason);
  // Aborted while it waits.
  let finish = (): void => undefined;
  const slow = { evict: () => new Promise<void>((resolve) => (finish = resolve)) };
  file.markEvictable(slow as never, { start: 0, end: PAGE_SIZE });
  file.startEvictions();
  const controller = new AbortController();
  const waiting = file.waitForEvictions({ signal: controller.signal });
  await Bun.sleep(5);
  controller.abort(reason);
  await expect(waiting).rejects.toBe(reason);
  finish();
});

test("released resolves at destroy, and so does waitForEvictions", async () => {
  const file = MemoryFile.create();
  file.decRef(file.allocate(2 ** 30));
  const waits = [file.released(), file.waitForEvictions()];
  file.destroy();
  await Promise.all(waits);
});
