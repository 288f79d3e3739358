import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { mapAnonymous, O_CREAT, O_RDWR, openFile, truncateFile, unmap } from "../../ffi/index.ts";
import { createControl } from "../../src/control/control.ts";
import { setInterleavingHook } from "../../src/control/interleave.ts";
import { LoadWord, PAGES_PER_UNIT, WORDS_PER_UNIT } from "../../src/load/load-tables.ts";
import { readNext } from "../../src/load/load-task.ts";
import { OpenLoad } from "../../src/load/open-load.ts";
import { UnitReader } from "../../src/load/unit-reader.ts";
import { HUGE_PAGE_SIZE } from "../../src/pages/units.ts";
import { fileSource, releaseFiles } from "../../src/source/file-source.ts";
import { openBlockingReader } from "../../src/source/open.ts";
import { denseState } from "./support/dense-state.ts";

const UNITS = 4;

interface Fixture {
  readonly load: OpenLoad;
  readonly reader: UnitReader;
}

/** A dense load of UNITS units from a file of zeros, with a reader of two units in flight. */
async function withReader(use: (fixture: Fixture) => void): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-unit-reader-"));
  const path = join(directory, "pages");
  const fd = openFile(path, O_RDWR | O_CREAT);
  rmSync(directory, { recursive: true });
  truncateFile(fd, UNITS * HUGE_PAGE_SIZE);
  const base = mapAnonymous(UNITS * HUGE_PAGE_SIZE);
  const source = fileSource([
    { fd: -1, path },
    { fd, path },
  ]);
  const state = denseState(UNITS, source);
  const load = new OpenLoad({ control: createControl(), state, base }, PAGES_PER_UNIT);
  const reader = new UnitReader(openBlockingReader(source, "background"), 2);
  try {
    use({ load, reader });
  } finally {
    await reader.close();
    load.close();
    unmap(base, UNITS * HUGE_PAGE_SIZE);
    releaseFiles(source);
  }
}

test("readNext reads wanted pages although the most units are in flight", async () => {
  await withReader(({ load, reader }) => {
    const { state } = load;
    reader.startUnit(load, 0);
    reader.startUnit(load, 1);
    expect(reader.inFlight).toBe(2);
    state.demands.demand(3 * PAGES_PER_UNIT, 3 * PAGES_PER_UNIT + 1);
    expect(readNext(load, reader)).toBe(true);
    expect(state.isLoaded(3 * PAGES_PER_UNIT, 3 * PAGES_PER_UNIT + 1)).toBe(true);
    expect(state.words[LoadWord.LoadedPages]).toBe(2 * PAGES_PER_UNIT + 1);
  });
});

test("startUnit leaves a unit wanted if the load is stopped after the claim", async () => {
  await withReader(({ load, reader }) => {
    const { state } = load;
    const want = new Int32Array(WORDS_PER_UNIT);
    setInterleavingHook((point) => {
      if (point === "load: claimed") Atomics.store(state.words, LoadWord.Stop, 1);
    });
    try {
      reader.startUnit(load, 2);
    } finally {
      setInterleavingHook(undefined);
    }
    expect(reader.inFlight).toBe(0);
    expect(state.demands.take(want)).toBe(-1);
    Atomics.store(state.words, LoadWord.Stop, 0);
    expect(state.demands.take(want)).toBe(2);
    expect([...want]).toEqual(new Array(WORDS_PER_UNIT).fill(-1));
  });
});
