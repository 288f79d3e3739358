/** MemoryFile.open, checkpointEvery and markWritten. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  CorruptCheckpointError,
  FileRange,
  MemoryFile,
  NoCheckpointError,
  PAGE_SIZE,
} from "../../src/index.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "pgalloc-open-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const first = new FileRange(0, PAGE_SIZE);

async function failureOf(work: Promise<unknown>): Promise<unknown> {
  return await work.then(
    () => undefined,
    (error: unknown) => error,
  );
}

describe("open", () => {
  test.each(["empty directory", "no directory"])("makes a file with create: %s", async (kind) => {
    const where = kind === "no directory" ? join(directory, "not", "there") : directory;
    using file = await MemoryFile.open(where, { create: true, name: "made" });
    expect({ name: file.name, bytes: file.allocatedBytes }).toEqual({ name: "made", bytes: 0 });
    expect(await failureOf(MemoryFile.open(where))).toBeInstanceOf(NoCheckpointError);
  });

  test("returns the checkpoint if there is one, with or without create", async () => {
    using file = MemoryFile.create();
    file.view(file.allocate(PAGE_SIZE)).fill(3);
    await file.saveTo(directory);
    for (const create of [true, false]) {
      using back = await MemoryFile.open(directory, { create });
      expect(back.view(first)[5]).toBe(3);
    }
  });

  test("refuses a damaged checkpoint with create, too", async () => {
    writeFileSync(join(directory, "meta"), "not a manifest");
    const failure = await failureOf(MemoryFile.open(directory, { create: true }));
    expect(failure).toBeInstanceOf(CorruptCheckpointError);
  });

  test("refuses a create that is not a boolean", async () => {
    const failure = await failureOf(MemoryFile.open(directory, { create: 1 as never }));
    expect(failure).toBeInstanceOf(TypeError);
  });
});

describe("checkpointEvery", () => {
  test("saves the program's writes until it is stopped", async () => {
    using file = MemoryFile.create();
    const view = file.view(file.allocate(PAGE_SIZE));
    let saves = 0;
    await using periodic = file.checkpointEvery(directory, 2, { onSave: () => saves++ });
    for (let value = 1; value <= 3; value++) {
      view[0] = value;
      // The save under way may have begun before.
      for (const before = saves; saves < before + 2; ) await Bun.sleep(1);
      using back = await MemoryFile.loadFrom(directory);
      expect(back.view(first)[0]).toBe(value);
    }
    await periodic.stop();
    const before = saves;
    await Bun.sleep(30);
    expect(saves).toBe(before);
  });

  test("ends with the file, and with its signal", async () => {
    const file = MemoryFile.create();
    file.view(file.allocate(PAGE_SIZE)).fill(1);
    const errors: unknown[] = [];
    const stop = new AbortController();
    const options = { onError: (error: unknown) => errors.push(error) };
    const byFile = file.checkpointEvery(join(directory, "a"), 1, options);
    const bySignal = file.checkpointEvery(join(directory, "b"), 1, {
      ...options,
      signal: stop.signal,
    });
    while (byFile.lastReport === undefined || bySignal.lastReport === undefined) await Bun.sleep(1);
    stop.abort();
    await bySignal.stop();
    file.destroy();
    await byFile.stop();
    expect(errors).toEqual([]);
    expect(readdirSync(join(directory, "a")).some((name) => name === "meta")).toBe(true);
  });

  test("keeps no process alive", () => {
    const library = JSON.stringify(new URL("../../src/index.ts", import.meta.url).pathname);
    const script = `
      import { MemoryFile } from ${library};
      MemoryFile.create().checkpointEvery(${JSON.stringify(directory)}, 60_000);`;
    const { exitCode } = Bun.spawnSync([process.execPath, "-e", script]);
    expect(exitCode).toBe(0);
  });
});

describe("markWritten", () => {
  test("refuses a range outside of the file", () => {
    using file = MemoryFile.create();
    file.allocate(PAGE_SIZE);
    file.markWritten(first);
    expect(() => file.markWritten(new FileRange(0, 1))).toThrow(RangeError);
    expect(() => file.markWritten(undefined as never)).toThrow(TypeError);
  });
});
