/** A checkpoint shows one instant, whatever the program and its Workers write during the save. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ChangeDetection } from "../../src/changes/tracker.ts";
import {
  MADV_COLLAPSE,
  MADV_POPULATE_WRITE,
  resetTrackingProbe,
  trackingUnavailable,
  tryAdvise,
} from "../../ffi/index.ts";
import { coreOf } from "../../src/file/memory-file.ts";
import { HUGE_PAGE_SIZE, MemoryFile, PAGE_SIZE, saveAll, loadAll } from "../../src/index.ts";
import { Accounts, decodeNumber, encodeNumber, mistakeIn, wordsOf } from "./support/accounts.ts";

const MIB = 2 ** 20;
const BYTES = 32 * MIB;
const detections: ChangeDetection[] =
  trackingUnavailable() === null ? ["userfaultfd", "hashes"] : ["hashes"];

/** What a container answers that forbids userfaultfd. */
const REFUSED = { syscall: "userfaultfd", code: "EPERM", reason: "refused by a test" };

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "pgalloc-instant-"));
});
afterEach(() => rmSync(directory, { recursive: true }));

/** Writes turn after turn until it is stopped. */
class Writer implements Disposable {
  sequence = 0;
  private readonly accounts: Accounts;
  private readonly transfers: number;
  private isOver = false;

  constructor(accounts: Accounts, transfers: number) {
    this.accounts = accounts;
    this.transfers = transfers;
    this.turn();
  }

  private turn(): void {
    if (this.isOver) return;
    this.accounts.transfer(this.transfers);
    this.accounts.number(++this.sequence);
    setTimeout(() => this.turn(), 1);
  }

  [Symbol.dispose](): void {
    this.isOver = true;
  }
}

describe.each(detections)("%s", (detection) => {
  beforeEach(() => {
    if (detection === "hashes") resetTrackingProbe(REFUSED);
  });
  afterEach(() => resetTrackingProbe());

  test("saveTo shows one instant of memory and user data", async () => {
    using file = MemoryFile.create();
    file.allocate(BYTES);
    const accounts = new Accounts(wordsOf(file, BYTES));
    accounts.open();
    using writer = new Writer(accounts, 20);
    const userData = () => encodeNumber(writer.sequence);
    for (let save = 0; save < 8; save++) {
      const report = await file.saveTo(directory, { userData });
      expect(report).toMatchObject({ isConsistent: true, detection });
      expect(report.rounds.length).toBeGreaterThan(0);
      expect(report.pauseMs).toBeGreaterThan(0);
      expect(await mistakeIn(directory, BYTES)).toBeUndefined();
    }
  });

  test("saveTo keeps pages that are freed and allocated again during the save", async () => {
    using file = MemoryFile.create();
    const kept = file.allocate(BYTES);
    file.view(kept, Uint32Array).fill(1);
    const list: { start: number; end: number; stamp: number }[] = [];
    let stamp = 2;
    const churn = () => {
      for (let i = 0; i < 8; i++) {
        const range = file.allocate(4 * PAGE_SIZE, { mode: "callerIndirectCommit" });
        file.view(range, Uint32Array).fill(++stamp);
        list.push({ start: range.start, end: range.end, stamp });
        if (list.length > 20) file.decRef(list.splice(stamp % 20, 1)[0]!);
      }
    };
    const timer = setInterval(churn, 1);
    for (let save = 0; save < 6; save++) {
      let atInstant: typeof list = [];
      const userData = () => {
        atInstant = [...list];
        return new Uint8Array(1);
      };
      await file.saveTo(directory, { userData });
      using back = await MemoryFile.loadFrom(directory);
      expect(back.view(kept, Uint32Array).every((word) => word === 1)).toBe(true);
      for (const range of atInstant)
        expect(new Set(back.view(range, Uint32Array))).toEqual(new Set([range.stamp]));
      expect(back.allocatedBytes).toBe(BYTES + atInstant.length * 4 * PAGE_SIZE);
    }
    clearInterval(timer);
  });
});

test("saveAll shows one instant of several files", async () => {
  using a = MemoryFile.create();
  using b = MemoryFile.create();
  for (const file of [a, b]) file.allocate(BYTES);
  const [wordsA, wordsB] = [wordsOf(a, BYTES), wordsOf(b, BYTES)];
  for (const words of [wordsA, wordsB]) words.fill(7);
  let sequence = 0;
  const timer = setInterval(() => {
    sequence++;
    for (let i = 0; i < 50; i++) {
      const at = (sequence * 50 + i * 7919) % wordsA.length;
      wordsA[at] = sequence;
      wordsB[at] = sequence;
    }
  }, 1);
  for (let save = 0; save < 4; save++) {
    const fileUserData = { a: () => encodeNumber(sequence), b: () => encodeNumber(sequence) };
    await saveAll(directory, { a, b }, { fileUserData });
    using files = await loadAll(directory);
    const [backA, backB] = [files.get("a")!, files.get("b")!];
    expect(decodeNumber(backA.userData)).toBe(decodeNumber(backB.userData)!);
    expect(
      Buffer.compare(backA.view({ start: 0, end: BYTES }), backB.view({ start: 0, end: BYTES })),
    ).toBe(0);
  }
  clearInterval(timer);
});

test("saveTo copies a small file at once, without tracking", async () => {
  using file = MemoryFile.create();
  file.view(file.allocate(2 * MIB)).fill(3);
  const report = await file.saveTo(directory);
  expect(report).toMatchObject({ isConsistent: true, detection: "none", rounds: [] });
  expect(coreOf(file).changes.isActive).toBe(false);
});

test("saveTo with consistent: false stops no thread", async () => {
  using file = MemoryFile.create();
  file.view(file.allocate(2 * MIB)).fill(3);
  const report = await file.saveTo(directory, { consistent: false });
  expect(report).toMatchObject({ isConsistent: false, pauseMs: 0, detection: "none" });
});

test("PauseMemoryError leaves the destination as it was", async () => {
  using file = MemoryFile.create();
  file.view(file.allocate(2 * MIB)).fill(3);
  const options = { pauseMemoryBytes: MIB };
  await expect(file.saveTo(directory, options)).rejects.toMatchObject({
    code: "ERR_PAUSE_MEMORY",
    limitBytes: MIB,
    neededBytes: 2 * MIB,
  });
  expect(readdirSync(directory)).toEqual([]);
});

test.skipIf(!detections.includes("userfaultfd"))(
  "saveTo goes on with its rounds after it has split huge pages",
  async () => {
    using file = MemoryFile.create();
    const range = file.allocate(16 * HUGE_PAGE_SIZE, { huge: true });
    for (let at = range.start; at < range.end; at += HUGE_PAGE_SIZE) {
      const address = coreOf(file).mapping.base + at;
      tryAdvise(address, PAGE_SIZE, MADV_POPULATE_WRITE);
      expect(tryAdvise(address, HUGE_PAGE_SIZE, MADV_COLLAPSE)).toBe(0);
    }
    const bytes = file.view(range).fill(1);
    // Each turn writes to all huge pages, so each round finds all of them until they are split.
    const timer = setInterval(() => {
      for (let at = 0; at < bytes.length; at += HUGE_PAGE_SIZE) bytes[at]!++;
    }, 1);
    try {
      const report = await file.saveTo(directory, { pauseMemoryBytes: 8 * MIB });
      expect(report.isConsistent).toBe(true);
    } finally {
      clearInterval(timer);
    }
  },
);

test("saveTo ends if userData throws, or returns something else", async () => {
  using file = MemoryFile.create();
  file.view(file.allocate(PAGE_SIZE)).fill(3);
  const fail = () => {
    throw new Error("Not now");
  };
  await expect(file.saveTo(directory, { userData: fail })).rejects.toThrow("Not now");
  const give = () => "text" as unknown as Uint8Array;
  await expect(file.saveTo(directory, { userData: give })).rejects.toThrow(TypeError);
  expect(readdirSync(directory)).toEqual([]);
});

test("saveTo keeps the invariant of four Workers that write, in every checkpoint", async () => {
  using file = MemoryFile.create();
  file.allocate(BYTES);
  new Accounts(wordsOf(file, BYTES)).open();
  const handle = file.share();
  const pages = BYTES / PAGE_SIZE;
  const workers = Array.from({ length: 4 }, (_, i) => {
    const worker = new Worker(join(import.meta.dir, "support/accounts-worker.ts"));
    const part = (pages - 2) / 4;
    const from = Math.floor(1 + i * part);
    worker.postMessage({ handle, bytes: BYTES, from, to: Math.floor(1 + (i + 1) * part) });
    return worker;
  });
  const answers = () =>
    Promise.all(workers.map((worker) => new Promise((resolve) => (worker.onmessage = resolve))));
  await answers();
  for (let save = 0; save < 8; save++) {
    await file.saveTo(directory);
    expect(await mistakeIn(directory, BYTES)).toBeUndefined();
  }
  const ended = answers();
  for (const worker of workers) worker.postMessage("end");
  await ended;
  for (const worker of workers) worker.terminate();
}, 60_000);
