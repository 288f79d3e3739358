/**
 * Pairs of page transitions in two threads: one thread is stopped between two steps of its
 * transition, the other thread does all of its own, and the first continues. Each thread has one
 * half of a huge page and of a small range, so both change the same huge page and the same runs.
 *
 * After each pair the file must equal a model: every page has its contents, nothing leaks, the huge
 * page is free once both halves are, and a save and a load succeed.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Point } from "../../../src/control/interleave.ts";
import { HUGE_PAGE_SIZE, MemoryFile, PAGE_SIZE, type RangeLike } from "../../../src/index.ts";
import { setFaultHook } from "../../../ffi/index.ts";
import { Word } from "../../../src/control/control.ts";
import { coreOf } from "../../../src/file/memory-file.ts";
import { LoadWord, WORDS_PER_UNIT } from "../../../src/load/load-tables.ts";
import { restartOrder } from "../../../src/load/order.ts";
import { THREAD_ID } from "../../../src/threads/thread.ts";
import { Actor, type Gate, GateWord } from "./actor.ts";

const HALF = HUGE_PAGE_SIZE / 2;
const SMALL = 8 * PAGE_SIZE;
const STAMP = 7;
/** Long enough to see that a thread waits for the other one. */
const BLOCKED_MS = 40;

interface Share {
  readonly huge: RangeLike;
  readonly small: RangeLike;
  readonly directory: string;
}

/** The result of a transition: ranges with one reference, by their byte. */
interface Owned {
  readonly range: RangeLike;
  readonly byte: number;
}

type Transition = (actor: Actor, share: Share) => Promise<readonly Owned[]>;

const kept = ({ huge, small }: Share): { huge: Owned; small: Owned } => ({
  huge: { range: huge, byte: STAMP },
  small: { range: small, byte: STAMP },
});

async function allocated(actor: Actor, lengthBytes: number, options = {}): Promise<Owned> {
  return { range: await actor.call("allocate", lengthBytes, options), byte: 0 };
}

export const transitions: Readonly<Record<string, Transition>> = {
  allocate: async (actor, share) => [
    ...Object.values(kept(share)),
    await allocated(actor, SMALL),
    await allocated(actor, HUGE_PAGE_SIZE, { huge: true }),
  ],
  drop: async (actor, share) => {
    await actor.call("decRef", share.huge);
    await actor.call("decRef", share.small);
    return [];
  },
  release: async (actor, share) => {
    await actor.call("decRef", share.small);
    await actor.call("released");
    return [kept(share).huge];
  },
  subRelease: async (actor, share) => {
    await actor.call("decRef", share.huge);
    await actor.call("released");
    return [kept(share).small];
  },
  recycle: async (actor, share) => {
    await actor.call("decRef", share.small);
    await actor.call("decRef", share.huge);
    return [
      await allocated(actor, SMALL, { mode: "commit" }),
      await allocated(actor, HUGE_PAGE_SIZE, { huge: true, mode: "writePopulate" }),
    ];
  },
  decommit: async (actor, share) => {
    await actor.call("decommit", share.huge);
    await actor.call("decommit", share.small);
    return Object.values(kept(share)).map(({ range }) => ({ range, byte: 0 }));
  },
  save: async (actor, share) => {
    // A consistent save would stop this thread, which holds the other one's gate.
    await actor.call("save", share.directory, { consistent: false });
    return Object.values(kept(share));
  },
  load: async (actor, share) => {
    await actor.call("awaitLoadSync", share.huge);
    await actor.call("awaitLoadSync", share.small);
    return Object.values(kept(share));
  },
  cancel: async (actor, share) => {
    await actor.call("decRef", share.huge);
    await actor.call("awaitLoad");
    return [kept(share).small];
  },
};

/**
 * Steps that a thread takes without the file's lock: no other step lets a second thread in between.
 * Steps of a load are in memory-order.test.ts.
 */
export const POINTS: readonly Point[] = [
  "release: began",
  "release: decommitted",
  "releaser: found no waste",
];

/** The other steps: the second thread may have to wait for the lock, or for pages that are read. */
export const OTHER_POINTS: readonly Point[] = [
  "lock: taken",
  "grow: chunks mapped",
  "release: sub-released",
  "load: claimed",
  "load: bytes in place",
  "load: bits set",
  "drop: claimed",
  "wait: looked at the bits",
];

/** A thread does `first` and stops at `point`, while another one does `second`. */
export interface Pair {
  readonly first: string;
  readonly second: string;
  readonly point: Point;
}

const names = Object.keys(transitions);

/** Every pair of transitions at every step that any of them has. */
export const ALL_PAIRS: readonly Pair[] = names.flatMap((first) =>
  [...POINTS, ...OTHER_POINTS].flatMap((point) =>
    names.map((second) => ({ first, second, point })),
  ),
);

/** Runs pairs. Returns how many were stopped at their point: not every transition has each. */
export async function runPairs(pairs: readonly Pair[]): Promise<number> {
  await using runner = new PairRunner();
  await runner.prepare();
  let stopped = 0;
  for (const { first, second, point } of pairs) {
    try {
      if (await runner.run(first, second, point)) stopped++;
    } catch (error) {
      throw new Error(`${first}, stopped at "${point}", beside ${second}`, { cause: error });
    }
  }
  return stopped;
}

/** Two threads and a checkpoint that every pair starts from. */
export class PairRunner implements AsyncDisposable {
  readonly #actors = [new Actor(), new Actor()] as const;
  readonly #directory = mkdtempSync(join(tmpdir(), "pgalloc-pairs-"));
  #shares: readonly Share[] = [];
  /**
   * Two huge pages that come first: the background pass gets no further. In use to the end: pages
   * of several huge pages that are released at once leave ragged ends, which do not become free.
   */
  #filler: RangeLike = { start: 0, end: 0 };

  async prepare(): Promise<void> {
    using file = MemoryFile.create({ expectHugepages: true });
    this.#filler = file.allocate(2 * HUGE_PAGE_SIZE, { huge: true });
    for (const at of [0, HUGE_PAGE_SIZE]) file.view(this.#filler)[at] = STAMP;
    const huge = file.allocate(HUGE_PAGE_SIZE, { huge: true });
    const small = file.allocate(2 * SMALL);
    for (const range of [huge, small]) file.view(range).fill(STAMP);
    await file.saveTo(join(this.#directory, "base"));
    this.#shares = [0, 1].map((i) => ({
      huge: { start: huge.start + i * HALF, end: huge.start + (i + 1) * HALF },
      small: { start: small.start + i * SMALL, end: small.start + (i + 1) * SMALL },
      directory: join(this.#directory, `saved-${i}`),
    }));
  }

  /**
   * A file of which the first filler page alone is loaded. This thread keeps a claim on the second,
   * and reads nothing else, until `finish`.
   */
  async #begin(): Promise<{ file: MemoryFile; finish: () => void }> {
    // The slice in which the background pass begins ends after one unit.
    setFaultHook((call) => {
      if (call === "pread" || call === "preadv") Bun.sleepSync(3);
      return undefined;
    });
    const file = await MemoryFile.loadFrom(join(this.#directory, "base"), {
      background: true,
      queue: "inline",
      expectHugepages: true,
    }).finally(() => setFaultHook(undefined));
    const { loader, control, words } = coreOf(file);
    const { state } = loader!;
    const slot = state.takeSlot();
    const filler = new Int32Array(WORDS_PER_UNIT).fill(-1);
    const count = state.claim(slot, 1, filler);
    if (count === 0) throw new Error("Expected the background pass to read one unit");
    Atomics.store(state.words, LoadWord.NextUnit, state.unitCount);
    // No service thread looks after the file: it would read for this thread.
    Atomics.store(words, Word.Service, THREAD_ID);
    for (const actor of this.#actors) await actor.call("attach", file.share());
    const finish = () => {
      restartOrder(state.words);
      state.publish(control, slot, 1, filler, count);
      state.freeSlot(slot);
    };
    return { file, finish };
  }

  /**
   * Runs the pair with the first thread stopped at `point`. Returns false if the thread never
   * reached it.
   */
  async run(first: string, second: string, point: Point): Promise<boolean> {
    const [a, b] = this.#actors;
    const { file, finish } = await this.#begin();
    using _file = file;
    const gate = await a.stopAt(point);
    const one = transitions[first]!(a, this.#shares[0]!);
    const isStopped = await isReached(gate, one);
    const two = transitions[second]!(b, this.#shares[1]!);
    await Promise.race([two, Bun.sleep(BLOCKED_MS)]);
    gate.open();
    finish();
    const owned = [...(await one), ...(await two)];
    await this.#check(file, owned);
    return isStopped;
  }

  /**
   * Terminates the first thread at `point` of a transition. Then the second thread does all it can
   * with its own pages, and the file must be in order except for pages of the dead thread. Returns
   * false if the thread never reached the point.
   */
  async runDeath(action: string, point: Point): Promise<boolean> {
    const [a, b] = this.#actors;
    const { file, finish } = await this.#begin();
    using _file = file;
    const gate = await a.stopAt(point);
    const dying = transitions[action]!(a, this.#shares[0]!).catch(() => []);
    const isStopped = await isReached(gate, dying);
    await a.terminate();
    finish();
    const owned = await transitions.recycle!(b, this.#shares[1]!);
    await file.awaitLoad();
    await file.released();
    for (const { range, byte } of owned) {
      const at = file.view(range).findIndex((found) => found !== byte);
      if (at >= 0) throw new Error(`Expected ${byte} at ${range.start + at}`);
    }
    const saved = join(this.#directory, "after");
    await file.saveTo(saved);
    using loaded = await MemoryFile.loadFrom(saved, { expectHugepages: true });
    if (loaded.allocatedBytes !== file.allocatedBytes) throw new Error("Expected equal files");
    rmSync(saved, { recursive: true });
    return isStopped;
  }

  async #check(file: MemoryFile, owned: readonly Owned[]): Promise<void> {
    await file.awaitLoad();
    await file.released();
    requireContents(file, this.#filler, owned);
    const saved = join(this.#directory, "after");
    await file.saveTo(saved);
    using loaded = await MemoryFile.loadFrom(saved, { expectHugepages: true });
    requireContents(loaded, this.#filler, owned);
    rmSync(saved, { recursive: true });
    for (const { range } of owned) file.decRef(range);
    await file.released();
    file.decRef(this.#filler);
    await file.released();
    const left = file
      .dump()
      .split("\n")
      .filter((run) => !run.endsWith(" free"));
    if (left.length > 0) throw new Error(`Expected all pages to be free, got ${left.join("; ")}`);
    if (file.totalUsageBytes !== 0)
      throw new Error(`Expected no committed memory, got ${file.totalUsageBytes} bytes`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#actors.map((actor) => actor.terminate()));
    rmSync(this.#directory, { recursive: true });
  }
}

/** False if `work` ends, or waits for other pages, before it comes to the gate. */
async function isReached(gate: Gate, work: Promise<unknown>): Promise<boolean> {
  const reached = gate.reached().then(() => true);
  const isStopped = await Promise.race([
    reached,
    work.then(() => false),
    Bun.sleep(5 * BLOCKED_MS).then(() => false),
  ]);
  // `reached` looks for ever: the gate counts as reached once it is not needed any more.
  gate.words[GateWord.Reached]!++;
  return isStopped;
}

function requireContents(file: MemoryFile, filler: RangeLike, owned: readonly Owned[]): void {
  let pages = filler.end - filler.start;
  for (const { range, byte } of owned) {
    pages += range.end - range.start;
    const at = file.view(range).findIndex((found) => found !== byte);
    if (at >= 0)
      throw new Error(`Expected ${byte} at ${range.start + at}, got ${file.view(range)[at]}`);
    if (!file.hasUniqueRef(range)) throw new Error(`Expected one reference on ${range.start}`);
  }
  if (file.allocatedBytes !== pages)
    throw new Error(`Expected ${pages} bytes in use, got ${file.allocatedBytes}`);
}
