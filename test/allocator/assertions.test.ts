/**
 * Assertions notice a broken state: each test breaks one thing as a bug would, and the error names
 * the values. The lines with `checked` run only under PGALLOC_ASSERT.
 */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { checkAllocator } from "../../src/allocator/check.ts";
import { FREE, RELEASING, USED, WASTE } from "../../src/allocator/states.ts";
import { WasteBatch } from "../../src/allocator/waste.ts";
import { ParticipantWord, Word } from "../../src/control/control.ts";
import { acquireLock, releaseLock } from "../../src/control/lock.ts";
import { freeSlot, slotWord } from "../../src/control/participants.ts";
import { whileStopped } from "../../src/control/stops.ts";
import type { FileCore } from "../../src/core/core.ts";
import { checksStructures, InvariantError } from "../../src/errors/errors.ts";
import { coreOf } from "../../src/file/memory-file.ts";
import { RunBuilder } from "../../src/gvisor/run-builder.ts";
import { CHUNK_SIZE, MemoryFile, PAGE_SIZE } from "../../src/index.ts";

const checked = test.skipIf(!checksStructures);

let file: MemoryFile;
let core: FileCore;

beforeEach(() => {
  file = MemoryFile.create();
  core = coreOf(file);
});

afterEach(() => file.destroy());

/** Runs `act` while a word has another value. */
function withWord(word: number, value: number, act: () => unknown): void {
  const before = core.words[word]!;
  core.words[word] = value;
  try {
    act();
  } finally {
    core.words[word] = before;
  }
}

function expectBroken(act: () => unknown, message: string | RegExp): void {
  expect(act).toThrow(InvariantError);
  expect(act).toThrow(message);
}

test("take refuses counts of pages that cannot be true together", () => {
  file.allocate(PAGE_SIZE);
  const batch = new WasteBatch(core.allocator);
  withWord(Word.UsedPages, -1, () => {
    expectBroken(
      () => batch.take(1),
      /of 262144 pages -1 are noted as used, 0 as waste, 0 as held/,
    );
  });
  withWord(Word.HeldPages, 1, () => {
    expectBroken(() => batch.take(1), "1 are noted as used, 0 as waste, 1 as held");
  });
});

test("finish refuses to free pages that it is not releasing", () => {
  const range = file.allocate(3 * PAGE_SIZE);
  file.view(range).fill(1);
  file.decRef(range);
  const batch = new WasteBatch(core.allocator);
  expect(batch.take(100)).toBe(true);
  const { set } = core.allocator;
  const { refs } = set.segmentAt(0);
  set.assign(1, 2, USED, 1);
  expectBroken(() => batch.finish(), /slot \d+ frees pages \[0, 3\), but \[0, 1\) has tag \d+/);
  set.assign(1, 2, RELEASING, refs);
  batch.finish();
  expect(set.segmentAt(0).tag).toBe(FREE);
});

test("a scan refuses a window that is not open, and a count beyond the file", () => {
  file.allocate(PAGE_SIZE, { mode: "commit" });
  const { commitment } = core;
  expectBroken(() => commitment.closeWindow(new Int32Array(1)), "a scan's window at page -1 of");
  withWord(Word.KnownPages, 262_145, () => {
    expectBroken(() => commitment.markCommitted(1, 2), /26214[67] of 262144 pages are noted/);
  });
  core.words[Word.KnownPages] = 2;
  commitment.markUncommitted(1, 2);
});

test("grow and decommit refuse bytes outside of the reserved address space", () => {
  const { mapping } = core;
  const { capacityBytes } = mapping;
  expectBroken(() => mapping.grow(capacityBytes, 1, false), `1 chunks after ${capacityBytes} of`);
  expectBroken(() => mapping.grow(1, 1, false), `1 chunks after 1 of ${capacityBytes} bytes`);
  expectBroken(
    () => mapping.decommit(0, capacityBytes + PAGE_SIZE),
    /bytes \[0, \d+\) to decommit/,
  );
  expectBroken(() => mapping.decommit(PAGE_SIZE, PAGE_SIZE), "bytes [4096, 4096) to decommit");
});

test("freeSlot refuses another thread's slot", () => {
  const { words } = core;
  const at = slotWord(100) + ParticipantWord.Thread;
  words[at] = 12_345;
  expect(() => freeSlot(words, 100)).toThrow(/freed slot 100 of thread 12345/);
  expect(words[at]).toBe(0);
});

test("whileStopped refuses a stop that another thread has ended", () => {
  file.share();
  const { control } = core;
  const stop = () =>
    whileStopped([control], { timeoutMs: 1000 }, () => {
      control.words[Word.Stop] = 0;
    });
  expectBroken(stop, /the stop of thread \d+ was that of 0/);
});

test("a run builder refuses pages that are not in order", () => {
  const builder = new RunBuilder(() => {});
  builder.push(4, 8, WASTE, 0, 0, 0);
  expectBroken(() => builder.push(7, 9, WASTE, 0, 1, 0), "pages [7, 9) after page 8");
});

checked("allocate refuses a gap that is not a run", () => {
  file.allocate(CHUNK_SIZE / 2);
  const { set } = core.allocator;
  const { fitEnd } = set;
  const firstFit = set.firstFit.bind(set);
  set.firstFit = (cls, count) => {
    const start = firstFit(cls, count);
    set.fitEnd--;
    return start;
  };
  expectBroken(() => file.allocate(PAGE_SIZE), /a gap \[131072, 262143\) of tag 0 for 1 pages/);
  set.firstFit = firstFit;
  set.fitEnd = fitEnd;
});

checked("releaseLock refuses another thread's lock", () => {
  file.share();
  const { words } = core;
  acquireLock(words);
  const owner = words[Word.Lock]!;
  words[Word.Lock] = 12_345;
  expect(() => releaseLock(words)).toThrow(/releases the lock of thread 12345/);
  words[Word.Lock] = owner;
  releaseLock(words);
});

test("checkAllocator finds references, counts and bits that differ", () => {
  file.allocate(2 * PAGE_SIZE);
  const { set } = core.allocator;
  const check = () => checkAllocator(set, core.words);
  withWord(Word.UsedPages, 3, () => expectBroken(check, "2 pages are used, 3 noted"));
  const tag = set.tagAt(0);
  set.assign(0, 2, tag, 0);
  expectBroken(check, "pages [0, 2) are used without a reference");
  set.assign(0, 2, tag, 1);
  check();
});

checked("destroy finds known pages that were not counted", () => {
  file.allocate(PAGE_SIZE, { mode: "commit" });
  withWord(Word.KnownPages, 2, () => {
    // A part of destroy(). Alone, so that the file can be destroyed afterwards.
    expect(() => core.commitment.leave()).toThrow("1 pages are known to be committed, 2 noted");
  });
});
