import { expect } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  FileRange,
  type LoadQueue,
  MemoryFile,
  PAGE_SIZE,
  SyscallError,
} from "../../../src/index.ts";
import { LoadWord, PAGES_PER_UNIT, WORDS_PER_UNIT } from "../../../src/load/load-tables.ts";
import { SLOT_WORDS } from "../../../src/load/load-tables.ts";
import { Word } from "../../../src/control/control.ts";
import { THREAD_ID } from "../../../src/threads/thread.ts";
import { coreOf } from "../../../src/file/memory-file.ts";

const EIO = 5;

/**
 * A restore that makes no progress: this thread holds the claim of every page that was not read at
 * once, and gives pages to other threads when the test wants it.
 */
export async function heldLoad({
  name = "held",
  queue = "inline",
}: {
  name?: string;
  queue?: LoadQueue;
} = {}) {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-order-"));
  const source = MemoryFile.create();
  const range = source.allocate(2 ** 26);
  source.view(range).fill(9);
  await source.saveTo(directory);
  source.destroy();
  const file = await MemoryFile.loadFrom(directory, { background: true, queue, name });
  // Open files stay readable.
  rmSync(directory, { recursive: true });
  const { control, loader, words } = coreOf(file);
  const { state } = loader!;
  // The file has no service thread, which would read for this thread.
  Atomics.store(words, Word.Service, THREAD_ID);
  const slot = state.takeSlot();
  const every = () => new Int32Array(WORDS_PER_UNIT).fill(-1);
  const wanted = Array.from({ length: state.unitCount }, every);
  const counts = wanted.map((want, unit) => state.claim(slot, unit, want));
  // The background pass ends without them, so only the test gives pages back.
  while (Atomics.load(state.words, LoadWord.NextUnit) <= state.unitCount) await Bun.sleep(1);
  // The last unit with unread pages.
  const unit = counts.lastIndexOf(PAGES_PER_UNIT);
  expect(unit).toBeGreaterThan(0);
  // A slot names one claim: the unit's, of all that this thread has made.
  const slots = state.tables.slots;
  slots.fill(-1, slot * SLOT_WORDS + 2, (slot + 1) * SLOT_WORDS);
  slots[slot * SLOT_WORDS + 1] = unit + 1;
  const page = new FileRange(
    unit * PAGES_PER_UNIT * PAGE_SIZE,
    (unit * PAGES_PER_UNIT + 1) * PAGE_SIZE,
  );
  return {
    file,
    /** The first page of the unit. */
    page,
    state,
    control,
    slots,
    slot,
    /** Gives back the claim of the unit, for another thread to take. */
    giveBack: () => state.unclaim(slot, unit, every()),
    /** The other claims end as if their pages had been read, so that the load can end. */
    finish: () => {
      for (const [other, count] of counts.entries()) {
        if (other !== unit && count > 0) state.publish(control, slot, other, wanted[other]!, count);
      }
    },
    /**
     * The unit's first `badCount` pages could not be read; its others are published by this thread.
     */
    fail: (badCount: number) => {
      const [bad, mismatched] = [new Int32Array(WORDS_PER_UNIT), new Int32Array(WORDS_PER_UNIT)];
      for (let page = 0; page < badCount; page++) bad[page >>> 5]! |= 1 << (page & 31);
      state.fail(control, slot, {
        unit,
        want: wanted[unit]!,
        count: counts[unit]!,
        bad,
        mismatched,
        badCount,
        error: state.errors.add(new SyscallError("pread", EIO)),
      });
    },
    /** This thread claims nothing any more, and gives nothing back. */
    letGo: () => state.unclaim(slot, unit, new Int32Array(WORDS_PER_UNIT)),
    /** Publishes the unit's pages. */
    publish: () => state.publish(control, slot, unit, wanted[unit]!, counts[unit]!),
    end: () => {
      state.freeSlot(slot);
      file.destroy();
    },
  };
}
