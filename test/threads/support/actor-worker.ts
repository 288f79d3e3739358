/** The Worker of actor.ts: carries out actions on a MemoryFile, and stops at points. */
import { openFile } from "../../../ffi/index.ts";
import {
  type LoadQueue,
  MemoryFile,
  type MemoryFileHandle,
  type MemoryFileOptions,
  type RangeLike,
  type SaveOptions,
} from "../../../src/index.ts";
import { coreOf } from "../../../src/file/memory-file.ts";
import { setInterleavingHook } from "../../../src/control/interleave.ts";
import { THREAD_ID } from "../../../src/threads/thread.ts";
import { UringQueue } from "../../../src/aio/uring-queue.ts";
import { LoadState } from "../../../src/load/load-state.ts";
import { type LoadHandle, WORDS_PER_UNIT } from "../../../src/load/load-tables.ts";
import { run as runLoadTask } from "../../../src/load/load-task.ts";
import { GateWord, type FromActor, type StopRequest, type ToActor } from "./actor.ts";

/** The part of a Worker's global scope that is used here. */
const scope = globalThis as unknown as {
  onmessage: ((event: { data: ToActor }) => void) | null;
  postMessage(message: FromActor): void;
};

let file: MemoryFile | undefined;
/** Pages were missing when this thread blocked. */
let missingWhenBlocked = false;
const views: Uint8Array[] = [];

function opened(): MemoryFile {
  if (file === undefined) throw new Error("Attach first");
  return file;
}

/** Stops this thread at a point until the gate opens; the gate counts how often it was reached. */
function stopAt({ point, gate, openFifo }: StopRequest): void {
  let stopped = false;
  setInterleavingHook((reached) => {
    if (reached !== point) return;
    Atomics.add(gate, GateWord.Reached, 1);
    if (stopped) return;
    stopped = true;
    // open(2) of a FIFO without a writer is a native call that blocks: a termination does not reach
    // it.
    if (openFifo !== undefined) openFile(openFifo, 0);
    else Atomics.wait(gate, GateWord.Open, 0);
  });
}

export const actions = {
  threadId: () => THREAD_ID,
  attach: (handle: MemoryFileHandle) => {
    file = MemoryFile.attach(handle);
    return { name: file.name, userData: file.userData };
  },
  createOwn: (options: MemoryFileOptions) => {
    file = MemoryFile.create(options);
  },
  create: (name: string) => {
    file = MemoryFile.create({ name });
    return file.share();
  },
  loadFrom: async (directory: string) => {
    file = await MemoryFile.loadFrom(directory, { background: true });
    return file.share();
  },
  /** Begins a load, and then blocks until the gate opens. */
  loadAndBlock: async (directory: string, queue: LoadQueue, gate: Int32Array) => {
    const loaded = await MemoryFile.loadFrom(directory, { background: true, queue });
    file = loaded;
    setImmediate(() => {
      missingWhenBlocked = loaded.isLoading;
      Atomics.wait(gate, GateWord.Open, 0);
    });
    return file.share();
  },
  missingWhenBlocked: () => missingWhenBlocked,
  stopAt,
  allocate: (lengthBytes: number, options = {}) => {
    const { start, end } = opened().allocate(lengthBytes, options);
    return { start, end };
  },
  fill: (range: RangeLike, byte: number) => {
    opened().view(range).fill(byte);
  },
  read: (range: RangeLike, index: number) => opened().view(range)[index],
  viewForEver: (range: RangeLike) => {
    for (;;) opened().view(range);
  },
  keepView: (range: RangeLike) => views.push(opened().view(range)),
  keptLengths: () => views.map((view) => view.length),
  incRef: (range: RangeLike) => opened().incRef(range),
  decRef: (range: RangeLike) => opened().decRef(range),
  decommit: (range: RangeLike) => opened().decommit(range),
  isLoaded: (range: RangeLike) => opened().isLoaded(range),
  awaitLoad: (range?: RangeLike) => opened().awaitLoad(range),
  awaitLoadSync: (range?: RangeLike) => opened().awaitLoadSync(range),
  released: () => opened().released(),
  /** Allocates memory that this thread gives up when it is asked. */
  cache: (lengthBytes: number) => {
    const range = opened().allocate(lengthBytes);
    const user = { evict: () => opened().decRef(range) };
    opened().markEvictable(user, { start: 0, end: 1 });
  },
  dropAndBlock: (range: RangeLike, waitMs: number) => {
    opened().decRef(range);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, waitMs);
  },
  sizes: () => {
    const { totalSizeBytes, allocatedBytes, totalUsageBytes } = opened();
    return { totalSizeBytes, allocatedBytes, totalUsageBytes };
  },
  isLoading: () => opened().isLoading,
  loadStats: () => opened().loadStats(),
  save: async (directory: string, options: SaveOptions = {}) =>
    (await opened().saveTo(directory, options)).usedBytes,
  destroy: () => opened().destroy(),
  text: () => opened().dump(),
  blockFor: (waitMs: number) => {
    Bun.sleepSync(waitMs);
  },
  serveDemand: () => {
    const { entry } = coreOf(opened()).loader!;
    // Without its check for dead threads, so that a lost wake-up lasts for ever.
    const { wait } = Atomics;
    Atomics.wait = ((words: Int32Array, index: number, value: number) =>
      wait(words, index, value)) as typeof wait;
    return runLoadTask({ role: "demand", source: entry.state.source, loads: [entry] });
  },
  /**
   * Claims a unit and begins a read of 4 KiB without a waiter; none with `fd` -1. Returns how many
   * pages were claimed.
   */
  readByRing: (handle: LoadHandle, unit: number, fd: number, address: number) => {
    const state = new LoadState(handle);
    const queue = new UringQueue(8, state.group.rings);
    const claimed = state.claim(state.takeSlot(), unit, new Int32Array(WORDS_PER_UNIT).fill(-1));
    if (fd < 0) return claimed;
    queue.read(1, fd, address, 4096, 0);
    queue.wait(0);
    return claimed;
  },
  repeat: (rounds: number, pages: number) => {
    for (let i = 0; i < rounds; i++) opened().decRef(opened().allocate(pages * 4096));
  },
  leave: () => {
    scope.onmessage = null;
  },
};

scope.postMessage({ thread: THREAD_ID });
scope.onmessage = ({ data: { id, action, args } }) => {
  const perform = async () => await (actions[action] as (...args: unknown[]) => unknown)(...args);
  perform().then(
    (value) => scope.postMessage({ id, value }),
    (error: Error & { code?: string }) =>
      scope.postMessage({
        id,
        failed: { name: error.name, code: error.code ?? null, message: error.message },
      }),
  );
};
