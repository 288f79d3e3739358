/**
 * The working set of a checkpoint: the pages that a start uses, recorded so that the next start
 * reads them first.
 *
 * While a restored file loads, each range that the program awaits or views is recorded in blocks of
 * 64 KiB, in the order of first use. Recording ends at `markReady`, or after 300 ms without a new
 * block, or after 10 s. Then the blocks are merged with those of earlier starts and written beside
 * the checkpoint, bound to its id. A block that two starts in a row did not use is dropped.
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
import { PAGE_SIZE } from "../pages/units.ts";
import { isRemote } from "../remote/place.ts";

/** Pages of a block: 64 KiB. */
export const BLOCK_PAGES = (64 * 1024) / PAGE_SIZE;
export const WORKING_SET_NAME = "working-set";

const QUIET_MS = 300;
const LONGEST_MS = 10_000;
/** The most blocks of a file, 4 GiB, so that no start reads most of a checkpoint twice. */
const BLOCKS_MAX = 65_536;
const FILE_BYTES_MAX = 4 * 1024 * 1024;
const FORMAT = 1;
/** A block's weight after a start that used it, and the factor of that after one that did not. */
const WEIGHT = 1;
const DECAY = 0.5;
const WEIGHT_MIN = 0.5;

/** Blocks in the order of their first use, with weights in (0, 1]. */
export type BlockWeights = ReadonlyMap<number, number>;

interface Stored {
  readonly format: number;
  readonly id: string;
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

/** The recorders of this thread's files, until they end. */
const recorders = new WeakMap<FileCore, Recorder>();
/** The working sets that this thread's files were restored with. */
const sets = new WeakMap<FileCore, WorkingSet>();

/** The program uses pages [start, end), or waits for them. */
export function noteUse(core: FileCore, start: number, end: number): void {
  recorders.get(core)?.note(start, end);
}

/** Ends the recording of a file: later use is not part of its start. */
export function endRecording(core: FileCore): void {
  recorders.get(core)?.end();
}

/** The file was saved over the checkpoint that it was restored from, which has that id now. */
export function rebindWorkingSet(core: FileCore, id: string): void {
  sets.get(core)?.rebind(id, core);
}

/** What `loadStats` says of the working set; sizes in bytes. */
export function workingSetStats(core: FileCore): {
  workingSetBytes: number;
  wastedBytes: number;
} {
  const recorder = recorders.get(core);
  if (recorder === undefined) return { workingSetBytes: 0, wastedBytes: 0 };
  const bytes = BLOCK_PAGES * PAGE_SIZE;
  return {
    workingSetBytes: recorder.known.size * bytes,
    wastedBytes: recorder.countUnused() * bytes,
  };
}

/** Notes the blocks that one file uses. */
class Recorder {
  readonly known: BlockWeights;
  private readonly used = new Set<number>();
  private readonly onEnd: (blocks: BlockWeights) => void;
  private readonly beganMs = performance.now();
  private lastMs = this.beganMs;
  private hasEnded = false;

  constructor(known: BlockWeights, onEnd: (blocks: BlockWeights) => void) {
    this.known = known;
    this.onEnd = onEnd;
  }

  note(start: number, end: number): void {
    if (this.hasEnded) return;
    const before = this.used.size;
    const last = Math.ceil(end / BLOCK_PAGES);
    for (let block = Math.floor(start / BLOCK_PAGES); block < last; block++) {
      if (this.used.size >= BLOCKS_MAX) break;
      this.used.add(block);
    }
    if (this.used.size > before) this.lastMs = performance.now();
  }

  /** Ends the recording if the start is over. */
  check(): void {
    const nowMs = performance.now();
    const isQuiet = this.used.size > 0 && nowMs - this.lastMs > QUIET_MS;
    if (isQuiet || nowMs - this.beganMs > LONGEST_MS) this.end();
  }

  get isOver(): boolean {
    return this.hasEnded;
  }

  end(): void {
    if (this.hasEnded) return;
    this.hasEnded = true;
    this.onEnd(merge(this.known, this.used));
  }

  countUnused(): number {
    let unused = 0;
    for (const block of this.known.keys()) if (!this.used.has(block)) unused++;
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
  private id: string;
  private readonly known: ReadonlyMap<string, BlockWeights>;
  /** What is written for the next start, by file: the files whose recording has ended. */
  private readonly next = new Map<string, BlockWeights>();

  constructor(path: string, id: string) {
    this.path = path;
    this.id = id;
    this.known = readStored(path, id);
  }

  blocksOf(name: string): BlockWeights {
    return this.known.get(name) ?? new Map();
  }

  /** Begins to record files, by name. The set is written when the last of them ends. */
  record(cores: ReadonlyMap<string, FileCore>): void {
    for (const [name, core] of cores) {
      const recorder = new Recorder(this.blocksOf(name), (blocks) => {
        this.next.set(name, blocks);
        if (this.next.size === cores.size) this.write(core);
      });
      recorders.set(core, recorder);
      sets.set(core, this);
      const timer = setInterval(() => {
        // A file that ends before its start is over records nothing.
        if (recorder.isOver || core.isDetached) clearInterval(timer);
        else recorder.check();
      }, QUIET_MS / 2);
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
    const stored: Stored = { format: FORMAT, id: this.id, files: Object.fromEntries(files) };
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
function readStored(path: string, id: string): ReadonlyMap<string, BlockWeights> {
  const files = new Map<string, BlockWeights>();
  for (const [name, { blocks, weights }] of Object.entries(parseStored(path, id)?.files ?? {})) {
    if (!Array.isArray(blocks) || !Array.isArray(weights)) return new Map();
    const known = new Map<number, number>();
    for (const [i, block] of blocks.slice(0, BLOCKS_MAX).entries()) {
      const weight: unknown = weights[i];
      if (!Number.isInteger(block) || block < 0 || block >= 2 ** 31 / BLOCK_PAGES) return new Map();
      if (typeof weight !== "number" || !(weight > 0 && weight <= WEIGHT)) return new Map();
      known.set(block, weight);
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
  const hasFiles = typeof stored?.files === "object" && stored.files !== null;
  return isOurs && hasFiles ? (stored as Stored) : undefined;
}
