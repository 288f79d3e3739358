/**
 * The working set of a checkpoint: the pages that a start uses, recorded so that the next start
 * reads them first.
 *
 * While recording, each range that the program awaits, views or misses is noted, by all its threads
 * (load/use-record.ts), in blocks in the order of first use. Recording ends at `markReady`, or
 * after 300 ms without a new block, or after 10 s. Then the blocks are merged with those of earlier
 * starts and written beside the checkpoint, bound to its id. A block that two starts in a row did
 * not use is dropped.
 *
 * The recorded file is never needed: if it is absent, damaged or of another checkpoint, it is
 * ignored. Sources: REAP (Ustiugov et al. 2021), FaaSnap (Ao et al. 2022).
 */
import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { showValue } from "../../ffi/index.ts";
import { countError } from "../control/counters.ts";
import type { FileCore } from "../core/core.ts";
import type { LoadOptions } from "../core/options.ts";
import type { Loader } from "../load/loader.ts";
import { BLOCKS_MAX, openUses, type UseRecord } from "../load/use-record.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { isRemote } from "../remote/place.ts";
import type { PageSource } from "../source/description.ts";
import { crossesNetwork } from "../source/describe.ts";

export const WORKING_SET_NAME = "working-set";

/** The recording ends after so many looks that found nothing new: after 300 ms. */
const LOOK_MS = 150;
const QUIET_LOOKS = 2;
const LONGEST_MS = 10_000;
const FILE_BYTES_MAX = 4 * 1024 * 1024;
const FORMAT = 2;
/** A block's weight after a start that used it, and the factor of that after one that did not. */
const WEIGHT = 1;
const DECAY = 0.5;
const WEIGHT_MIN = 0.5;

/**
 * Pages of a block: as many as cost little more to read than one. From a disk 16 KiB take as long
 * as 4 KiB, and 64 KiB twice as long; over a network 64 KiB take less than a millisecond more.
 */
export function blockPagesFor(source: PageSource): number {
  return crossesNetwork(source) ? 16 : 4;
}

/** Blocks in the order of their first use, with weights in (0, 1]. */
export type BlockWeights = ReadonlyMap<number, number>;

interface Stored {
  readonly format: number;
  readonly id: string;
  readonly blockPages: number;
  readonly files: Readonly<
    Record<string, { readonly blocks: readonly number[]; readonly weights: readonly number[] }>
  >;
}

/**
 * The absolute path at which a restore records; undefined: nowhere.
 *
 * @throws {TypeError} for an option that is neither a path nor false
 */
export function workingSetPath(where: string, options: LoadOptions): string | undefined {
  const { workingSet = isRemote(where) ? false : join(where, WORKING_SET_NAME) } = options;
  if (workingSet === false) return undefined;
  if (typeof workingSet !== "string" || workingSet === "")
    throw new TypeError(`Expected workingSet to be a path or false, got ${showValue(workingSet)}`);
  return resolve(workingSet);
}

/** The recorders of the files that this thread restored. */
const recorders = new WeakMap<FileCore, Recorder>();

/** Ends the recording of a file: later use is not part of its start. */
export function endRecording(core: FileCore): void {
  const { loader } = core;
  if (loader !== undefined) openUses(loader.state.handle)?.end();
  // In another thread, the one that restored the file sees it at its next look.
  recorders.get(core)?.look();
}

/** The file was saved over the checkpoint that it was restored from, which has that id now. */
export function rebindWorkingSet(core: FileCore, id: string): void {
  recorders.get(core)?.set.rebind(id, core);
}

/** What `loadStats` says of the working set; sizes in bytes. */
export function workingSetStats(core: FileCore): {
  workingSetBytes: number;
  wastedBytes: number;
} {
  const recorder = recorders.get(core);
  if (recorder === undefined) return { workingSetBytes: 0, wastedBytes: 0 };
  const bytes = recorder.uses.blockPages * PAGE_SIZE;
  return {
    workingSetBytes: recorder.known.size * bytes,
    wastedBytes: recorder.countUnused() * bytes,
  };
}

/** Decides when the recording of a file is over. */
class Recorder {
  readonly set: WorkingSet;
  readonly known: BlockWeights;
  readonly uses: UseRecord;
  private readonly isWaiting: () => boolean;
  private readonly onEnd: (blocks: BlockWeights) => void;
  private readonly beganMs = performance.now();
  private quietLooks = 0;
  private lastCount = 0;
  private hasEnded = false;

  constructor(
    set: WorkingSet,
    loader: Loader,
    known: BlockWeights,
    onEnd: (blocks: BlockWeights) => void,
  ) {
    this.set = set;
    const { state } = loader;
    this.uses = openUses(state.handle)!;
    this.known = known;
    this.isWaiting = () => state.isLoading && (loader.hasWaiters || state.group.isDemandUnderWay);
    this.onEnd = onEnd;
  }

  /** Ends the recording if the start is over. True if it has ended. */
  look(): boolean {
    if (this.hasEnded) return true;
    const { uses } = this;
    const { count } = uses;
    // A program that waits for a slow server is not quiet.
    const isQuiet = count > 0 && count === this.lastCount && !this.isWaiting();
    this.quietLooks = isQuiet ? this.quietLooks + 1 : 0;
    this.lastCount = count;
    const isLong = performance.now() - this.beganMs > LONGEST_MS;
    if (!uses.isOver && !isLong && this.quietLooks < QUIET_LOOKS) return false;
    uses.end();
    this.hasEnded = true;
    this.onEnd(merge(this.known, new Set(uses.inOrder())));
    return true;
  }

  countUnused(): number {
    let unused = 0;
    for (const block of this.known.keys()) if (!this.uses.has(block)) unused++;
    return unused;
  }
}

/**
 * The blocks that this start used, in its order, then those of earlier starts whose weight is still
 * large enough.
 */
export function merge(known: BlockWeights, used: ReadonlySet<number>): BlockWeights {
  const merged = new Map<number, number>();
  for (const block of used) merged.set(block, WEIGHT);
  for (const [block, weight] of known) {
    if (merged.size >= BLOCKS_MAX) break;
    if (!used.has(block) && weight * DECAY >= WEIGHT_MIN) merged.set(block, weight * DECAY);
  }
  return merged;
}

/** The working set of one checkpoint: as it was read, and as it is written for the next start. */
export class WorkingSet {
  private readonly path: string;
  private readonly blockPages: number;
  private id: string;
  private readonly known: ReadonlyMap<string, BlockWeights>;
  /** What is written for the next start, by file: the files whose recording has ended. */
  private readonly next = new Map<string, BlockWeights>();

  constructor(path: string, id: string, blockPages: number) {
    this.path = path;
    this.id = id;
    this.blockPages = blockPages;
    this.known = readStored(path, id, blockPages);
  }

  blocksOf(name: string): BlockWeights {
    return this.known.get(name) ?? new Map();
  }

  /**
   * Decides when the recordings of files end, by name. The set is written when the last of them
   * does.
   */
  record(cores: ReadonlyMap<string, FileCore>): void {
    for (const [name, core] of cores) {
      const recorder = new Recorder(this, core.loader!, this.blocksOf(name), (blocks) => {
        this.next.set(name, blocks);
        if (this.next.size === cores.size) this.write(core);
      });
      recorders.set(core, recorder);
      const timer = setInterval(() => {
        // A file that ends before its start is over records nothing.
        if (core.isDetached || recorder.look()) clearInterval(timer);
      }, LOOK_MS);
      timer.unref();
    }
  }

  /** The pages are in another checkpoint now. */
  rebind(id: string, core: FileCore): void {
    this.id = id;
    this.write(core);
  }

  /**
   * Replaces the file in one turn: a program that has destroyed the files may remove the directory.
   * A failure is counted: the next start reads without it.
   */
  private write(core: FileCore): void {
    const files = [...new Map([...this.known, ...this.next])].map(([name, blocks]) => {
      return [name, { blocks: [...blocks.keys()], weights: [...blocks.values()] }] as const;
    });
    if (files.every(([, { blocks }]) => blocks.length === 0)) return;
    const { id, blockPages } = this;
    const stored: Stored = { format: FORMAT, id, blockPages, files: Object.fromEntries(files) };
    const temporary = `${this.path}.${process.pid}.tmp`;
    try {
      try {
        writeFileSync(temporary, JSON.stringify(stored), { mode: 0o600, flag: "wx" });
        renameSync(temporary, this.path);
      } finally {
        rmSync(temporary, { force: true });
      }
    } catch (error) {
      countError(core.control.counters, error);
    }
  }
}

/** Blocks by file name; none for a file that is absent, damaged, or of another checkpoint. */
function readStored(path: string, id: string, size: number): ReadonlyMap<string, BlockWeights> {
  const files = new Map<string, BlockWeights>();
  const stored = parseStored(path, id);
  if (stored === undefined) return files;
  const { blockPages } = stored;
  for (const [name, { blocks, weights }] of Object.entries(stored.files)) {
    if (!Array.isArray(blocks) || !Array.isArray(weights)) return new Map();
    const known = new Map<number, number>();
    for (const [i, block] of blocks.slice(0, BLOCKS_MAX).entries()) {
      const weight: unknown = weights[i];
      if (!Number.isInteger(block) || block < 0 || block >= 2 ** 31 / blockPages) return new Map();
      if (typeof weight !== "number" || !(weight > 0 && weight <= WEIGHT)) return new Map();
      // It may have been recorded from another source, in blocks of another size.
      const end = (block + 1) * blockPages;
      for (let at = Math.floor((block * blockPages) / size); at * size < end; at++)
        if (!known.has(at) && known.size < BLOCKS_MAX) known.set(at, weight);
    }
    files.set(name, known);
  }
  return files;
}

function parseStored(path: string, id: string): Stored | undefined {
  const status = statSync(path, { throwIfNoEntry: false });
  if (status === undefined || !status.isFile() || status.size > FILE_BYTES_MAX) return undefined;
  let stored: Partial<Stored> | null;
  try {
    stored = JSON.parse(readFileSync(path, "utf8")) as Partial<Stored> | null;
  } catch (error) {
    // It is damaged, or this process may not read it. The start continues without it.
    if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code !== undefined)
      return undefined;
    throw error;
  }
  const isOurs = stored?.format === FORMAT && stored.id === id;
  const hasBlocks = stored?.blockPages === 4 || stored?.blockPages === 16;
  const hasFiles = typeof stored?.files === "object" && stored.files !== null;
  return isOurs && hasBlocks && hasFiles ? (stored as Stored) : undefined;
}
