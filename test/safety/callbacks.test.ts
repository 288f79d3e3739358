/** Callbacks of a program that destroy the file, throw, or call every method of it. */
import { describe, expect, test } from "bun:test";
import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { exportTo, importFrom } from "../../src/gvisor/index.ts";
import {
  DestroyedError,
  type LoadOptions,
  loadAll,
  MemoryFile,
  NotLoadedError,
  PAGE_SIZE,
} from "../../src/index.ts";
import { namedDescriptors } from "./support/descriptors.ts";
import { saveStamped } from "./support/stamped.ts";
import { onlyPageFile } from "../checkpoint/support/page-files.ts";
import { withDirectory } from "./support/files-of-test.ts";

describe("callbacks", () => {
  test("fill may destroy the file, throw, or call every method of it", async () => {
    const file = MemoryFile.create();
    const first = file.allocate(PAGE_SIZE);
    const boom = new Error("boom");
    const throwing = () => {
      throw boom;
    };
    expect(() => file.allocate(PAGE_SIZE, { fill: throwing })).toThrow(boom);
    const nested = file.allocate(PAGE_SIZE, {
      fill: (destination) => {
        file.decRef(file.allocate(PAGE_SIZE));
        file.view(first).fill(1);
        return destination.length;
      },
    });
    expect(file.view(nested).length).toBe(PAGE_SIZE);
    let kept: Uint8Array | undefined;
    const destroying = (destination: Uint8Array) => {
      kept = destination;
      file.destroy();
      return 0;
    };
    expect(() => file.allocate(PAGE_SIZE, { fill: destroying })).toThrow(DestroyedError);
    expect(kept!.length).toBe(0);
  });

  test("onProgress of a load and of a save may destroy the file, or throw", async () => {
    await withDirectory(async (directory) => {
      await saveStamped(directory, 64, 1);
      for (const queue of ["workers", "inline"] as const) {
        let file: MemoryFile | undefined;
        let destroyed = false;
        const onProgress = () => {
          destroyed = true;
          file?.destroy();
        };
        file = await MemoryFile.loadFrom(directory, { background: true, queue, onProgress });
        await file.awaitLoad().catch((error) => expect(error).toBeInstanceOf(DestroyedError));
        for (let i = 0; i < 200 && !destroyed; i++) await Bun.sleep(5);
        expect(() => file.allocatedBytes).toThrow(DestroyedError);
      }
      const file = MemoryFile.create();
      file.view(file.allocate(64 * PAGE_SIZE)).fill(1);
      const save = file.saveTo(join(directory, "other"), { onProgress: () => file.destroy() });
      await save.catch((error) => expect(error).toBeInstanceOf(DestroyedError));
      expect(() => file.allocatedBytes).toThrow(DestroyedError);
    });
  });

  test("loadFrom reports its end to onProgress, and rejects with its error", async () => {
    await withDirectory(async (directory) => {
      const native = join(directory, "native");
      const gvisor = join(directory, "gvisor");
      await saveStamped(native, 64, 1);
      using saved = await MemoryFile.loadFrom(native);
      await exportTo(saved, gvisor);
      const loads = [
        (options: LoadOptions) => MemoryFile.loadFrom(native, options),
        (options: LoadOptions) => importFrom(gvisor, options),
        (options: LoadOptions) =>
          loadAll(native, { queue: options.queue, onProgress: options.onProgress as () => void }),
      ];
      for (const queue of ["workers", "inline"] as const) {
        for (const load of loads) {
          let ends = 0;
          using _loaded = await load({
            queue,
            onProgress: ({ isLoading }) => {
              if (!isLoading) ends++;
            },
          });
          expect(ends).toBe(1);
          const onProgress = ({ isLoading }: { isLoading: boolean }) => {
            if (!isLoading) throw new Error("no room to draw");
          };
          await expect(load({ queue, onProgress })).rejects.toThrow("no room to draw");
        }
      }
      const open = () => namedDescriptors().filter((path) => path.startsWith(directory));
      for (let i = 0; i < 400 && open().length > 0; i++) await Bun.sleep(5);
      expect(open()).toEqual([]);
    });
  });

  test("evict may destroy the file, or throw", async () => {
    const file = MemoryFile.create();
    const range = file.allocate(8 * PAGE_SIZE);
    const told: string[] = [];
    const boom = {
      evict: () => {
        told.push("boom");
        throw new Error("boom");
      },
    };
    const destroyer = {
      evict: () => {
        told.push("destroy");
        file.destroy();
      },
    };
    file.markEvictable(boom, { start: range.start, end: range.start + PAGE_SIZE });
    file.startEvictions();
    await file.waitForEvictions().then(
      () => told.push("resolved"),
      (error: unknown) => told.push(error instanceof Error ? "rejected" : "?"),
    );
    expect(told).toEqual(["boom", "rejected"]);
    file.markEvictable(destroyer, { start: range.start, end: range.start + PAGE_SIZE });
    file.startEvictions();
    await file.waitForEvictions().catch((error) => expect(error).toBeInstanceOf(DestroyedError));
    for (let i = 0; i < 100 && !told.includes("destroy"); i++) await Bun.sleep(2);
    expect(told).toContain("destroy");
    expect(() => file.allocate(PAGE_SIZE)).toThrow(DestroyedError);
  });
});

test("every method and property of MemoryFile throws DestroyedError after destroy", async () => {
  const file = MemoryFile.create();
  const range = file.allocate(PAGE_SIZE);
  file.destroy();
  const { prototype } = MemoryFile;
  const names = [prototype, Object.getPrototypeOf(prototype)].flatMap((object) =>
    Object.getOwnPropertyNames(object),
  );
  expect(names.length).toBeGreaterThan(40);
  const wrong: string[] = [];
  // These methods work on a destroyed file, too.
  const answering = ["constructor", "destroy", "toString", "userData"];
  for (const name of names.filter((found) => !answering.includes(found))) {
    try {
      const value: unknown = (file as unknown as Record<string, unknown>)[name];
      if (typeof value === "function") await value.call(file, range, range);
      wrong.push(`${name} did not throw`);
    } catch (error) {
      if (!(error instanceof DestroyedError)) wrong.push(`${name} threw ${error}`);
    }
  }
  expect(wrong).toEqual([]);
  file.destroy();
  file[Symbol.dispose]();
});

test("a page that failed to load is never shown, by any method", async () => {
  await withDirectory(async (directory) => {
    await saveStamped(directory, 4, 1);
    const fd = openSync(onlyPageFile(directory), "r+");
    writeSync(fd, new Uint8Array([1, 2, 3]), 0, 3, PAGE_SIZE + 100);
    closeSync(fd);
    using file = await MemoryFile.loadFrom(directory, { background: true });
    const all = { start: 0, end: 4 * PAGE_SIZE };
    await expect(file.awaitLoad(all)).rejects.toMatchObject({ code: "ERR_CORRUPT_CHECKPOINT" });
    expect(() => file.view(all)).toThrow(NotLoadedError);
    expect(() => file.views(all)).toThrow(NotLoadedError);
    expect(() => file.view({ start: PAGE_SIZE, end: 2 * PAGE_SIZE })).toThrow(NotLoadedError);
    await expect(file.saveTo(join(directory, "copy"))).rejects.toMatchObject({
      code: "ERR_CORRUPT_CHECKPOINT",
    });
  });
});
