/** The times of periodic saves, and their end: with saves that the test controls. */
import { describe, expect, test } from "bun:test";
import { DestroyedError } from "../../src/index.ts";
import { PeriodicSaves } from "../../src/file/periodic-saves.ts";

const report = (pauseMs = 0) => ({ pauseMs });

describe("PeriodicSaves", () => {
  test("never overlaps saves, however long they take", async () => {
    let running = 0;
    let most = 0;
    let saves = 0;
    await using _ = new PeriodicSaves(async () => {
      most = Math.max(most, ++running);
      await Bun.sleep(10);
      running--;
      saves++;
      return report();
    }, 1);
    while (saves < 5) await Bun.sleep(1);
    expect(most).toBe(1);
  });

  test("stop resolves when the save under way has ended, and begins no other", async () => {
    let ended = 0;
    let begun = 0;
    const saves = new PeriodicSaves(async () => {
      begun++;
      await Bun.sleep(20);
      ended++;
      return report();
    }, 1);
    while (begun === 0) await Bun.sleep(1);
    await saves.stop();
    expect(ended).toBe(1);
    await Bun.sleep(20);
    expect(begun).toBe(1);
  });

  test("continues after errors, waits longer each time, and reports each", async () => {
    const begun: number[] = [];
    const errors: unknown[] = [];
    await using saves = new PeriodicSaves(
      async () => {
        begun.push(performance.now());
        if (begun.length < 5) throw new Error(`failure ${begun.length}`);
        return report();
      },
      4,
      { onError: (error) => errors.push(error) },
    );
    while (begun.length < 4) await Bun.sleep(1);
    expect(saves.failures).toBe(4);
    expect(errors.map(String)).toEqual([1, 2, 3, 4].map((n) => `Error: failure ${n}`));
    const waits = begun.slice(1).map((at, i) => at - begun[i]!);
    for (const [i, wait] of waits.entries())
      expect(wait).toBeGreaterThanOrEqual(4 * 2 ** (i + 1) - 1);
    while (saves.lastReport === undefined) await Bun.sleep(1);
    expect(saves.failures).toBe(0);
  });

  test("keeps pauses below 5 % of the time", async () => {
    const begun: number[] = [];
    await using _ = new PeriodicSaves(async () => {
      begun.push(performance.now());
      return report(5);
    }, 1);
    while (begun.length < 3) await Bun.sleep(1);
    for (const [i, at] of begun.slice(1).entries())
      expect(at - begun[i]!).toBeGreaterThanOrEqual(5 * 19);
  });

  test("ends with the file", async () => {
    let begun = 0;
    const errors: unknown[] = [];
    await using _ = new PeriodicSaves(
      async () => {
        begun++;
        throw new DestroyedError("MemoryFile", "saveTo()");
      },
      1,
      { onError: (error) => errors.push(error) },
    );
    while (begun === 0) await Bun.sleep(1);
    await Bun.sleep(30);
    expect({ begun, errors }).toEqual({ begun: 1, errors: [] });
  });

  test("begins no save if its signal was aborted before", async () => {
    let begun = 0;
    const count = async () => {
      begun++;
      return report();
    };
    await using _ = new PeriodicSaves(count, 1, { signal: AbortSignal.abort() });
    await Bun.sleep(20);
    expect(begun).toBe(0);
  });

  test("refuses bad arguments", () => {
    const save = async () => report();
    expect(() => new PeriodicSaves(save, 0)).toThrow(RangeError);
    expect(() => new PeriodicSaves(save, 1, { onError: 7 as never })).toThrow(TypeError);
  });
});
