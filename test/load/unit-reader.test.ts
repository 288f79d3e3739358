import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  closeFile,
  mapAnonymous,
  O_CREAT,
  O_RDWR,
  openFile,
  truncateFile,
  unmap,
} from "../../ffi/index.ts";
import { createQueue } from "../../src/aio/index.ts";
import { LoadWord, PAGES_PER_UNIT } from "../../src/load/load-state.ts";
import { UnitReader } from "../../src/load/unit-reader.ts";
import { createControl } from "../../src/control/control.ts";
import { HUGE_PAGE_SIZE } from "../../src/pages/units.ts";
import { denseState } from "./support/dense-state.ts";

const UNITS = 4;
const LIMITS = { depth: 2, readBytes: HUGE_PAGE_SIZE, windowPages: PAGES_PER_UNIT };

test("what is wanted is read also when as many units are in flight as may be", async () => {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-unit-reader-"));
  const fd = openFile(join(directory, "pages"), O_RDWR | O_CREAT);
  rmSync(directory, { recursive: true });
  truncateFile(fd, UNITS * HUGE_PAGE_SIZE);
  const base = mapAnonymous(UNITS * HUGE_PAGE_SIZE);
  const state = denseState(UNITS);
  const queue = createQueue("inline");
  const reader = new UnitReader(
    { control: createControl(), state, base, fd, directFd: -1 },
    queue,
    LIMITS,
  );
  reader.startUnit(0);
  reader.startUnit(1);
  expect(reader.inFlight).toBe(2);
  state.demand(3 * PAGES_PER_UNIT, 3 * PAGES_PER_UNIT + 1);
  expect(reader.readDemanded()).toBe(true);
  expect(state.isLoaded(3 * PAGES_PER_UNIT, 3 * PAGES_PER_UNIT + 1)).toBe(true);
  expect(state.words[LoadWord.LoadedPages]).toBe(2 * PAGES_PER_UNIT + 1);
  await queue.destroy();
  reader.close();
  unmap(base, UNITS * HUGE_PAGE_SIZE);
  closeFile(fd);
});
