/**
 * A thread that dies with a read in flight in its ring. The kernel continues the read, so no other
 * thread gets its pages until it has ended. A read of an empty FIFO stands for a slow disk.
 */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { addressOf, closeFile, openFile, uringUnavailable } from "../../ffi/index.ts";
import { PAGES_PER_UNIT, WORDS_PER_UNIT } from "../../src/load/load-tables.ts";
import { threadCount } from "../../src/threads/pool.ts";
import { hasClaims, recoverDeadClaims } from "../../src/load/dead-threads.ts";
import { RINGS } from "../../src/load/ring-table.ts";
import { Actor } from "../threads/support/actor.ts";
import { denseState } from "./support/dense-state.ts";

const O_RDWR = 2;
const directory = mkdtempSync(join(tmpdir(), "pgalloc-dead-ring-"));

// Threads of earlier tests' loads may have rings of their own.
beforeEach(async () => {
  while (threadCount().busy > 0) await Bun.sleep(1);
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function openRings(): number {
  // The descriptor of the listing itself is closed by now.
  const target = (fd: string) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return "";
    }
  };
  return readdirSync("/proc/self/fd").filter((fd) => target(fd) === "anon_inode:[io_uring]").length;
}

/**
 * Resolves when a ring waits for a descriptor to become readable, or if the kernel does not report
 * that.
 */
async function pollArmed(): Promise<void> {
  const isArmed = () =>
    readdirSync("/proc/self/fdinfo").some((fd) => {
      try {
        return /PollList:\s+op=/.test(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"));
      } catch {
        return false;
      }
    });
  for (let i = 0; i < 200 && !isArmed(); i++) await Bun.sleep(5);
}

const every = () => new Int32Array(WORDS_PER_UNIT).fill(-1);

test.skipIf(uringUnavailable() !== null)(
  "what a dead thread's ring still reads is given back when the read has ended, and the ring is " +
    "closed then",
  async () => {
    const state = denseState(2);
    const fifo = join(directory, "fifo");
    expect(Bun.spawnSync(["mkfifo", fifo]).exitCode).toBe(0);
    const fd = openFile(fifo, O_RDWR);
    const target = new Uint8Array(new ArrayBuffer(4096));
    const before = openRings();
    const actor = new Actor();
    expect(await actor.call("readByRing", state.handle, 1, fd, addressOf(target))).toBe(
      PAGES_PER_UNIT,
    );
    expect(openRings()).toBe(before + 1);
    // A read that the kernel has not begun ends with its thread.
    await pollArmed();
    await actor.terminate();

    const slot = state.takeSlot();
    for (let i = 0; i < 3; i++) {
      recoverDeadClaims(state);
      expect(hasClaims(state)).toBe(true);
      expect(state.claim(slot, 1, every())).toBe(0);
    }
    expect(state.claim(slot, 0, every())).toBe(PAGES_PER_UNIT);
    state.unclaim(slot, 0, every());
    expect(openRings()).toBe(before + 1);

    writeSync(fd, new Uint8Array(4096));
    while (hasClaims(state)) await Bun.sleep(1);
    expect(openRings()).toBe(before);
    recoverDeadClaims(state);
    expect(state.claim(slot, 1, every())).toBe(PAGES_PER_UNIT);
    closeFile(fd);
  },
);

test.skipIf(uringUnavailable() !== null)(
  "a ring with nothing in flight is closed at once, and its place is reused",
  async () => {
    const state = denseState(2);
    const before = openRings();
    // More than the table has places.
    for (let i = 0; i < RINGS + 4; i++) {
      const actor = new Actor();
      await actor.call("readByRing", state.handle, i % 2, -1, 0);
      await actor.terminate();
      recoverDeadClaims(state);
      expect(openRings()).toBe(before);
      expect(hasClaims(state)).toBe(false);
    }
  },
);
