/**
 * Detectors: they find the pages that changed since a save copied them. The kernel tracks writes,
 * it copies mapped pages that are written, or hashes of the save table are compared with memory.
 */
import { SyscallError } from "../../ffi/index.ts";
import { PageHashes } from "../changes/page-hashes.ts";
import { type PageRuns, RunCollector } from "../changes/page-runs.ts";
import type { ChangeDetection } from "../changes/tracker.ts";
import { writtenOfMapped } from "../changes/written-of-mapped.ts";
import { hashPage } from "../checkpoint/format.ts";
import { baseName } from "../control/base-name.ts";
import type { FileCore } from "../core/core.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { inSlices } from "../threads/slices.ts";
import type { FileTable } from "./save-table.ts";

export interface Detector {
  readonly detection: ChangeDetection;
  /** The most rounds that may help. */
  readonly maxRounds: number;
  /** The pages that may differ from the table before anything was copied. */
  first(used: PageRuns): Promise<PageRuns>;
  /**
   * The pages that may have changed since the last call. @param isHurried the program is stopped
   */
  changed(used: PageRuns, table: FileTable, isHurried: boolean): PageRuns;
  /** The checkpoint of that id was committed. */
  committed(id: string): void;
}

/** The kernel tracks writes. The save owns the file's tracker (changes/changes.ts). */
export class TrackingDetector implements Detector {
  readonly detection = "userfaultfd";
  readonly maxRounds = 24;
  private readonly core: FileCore;
  private readonly name: string;
  private readonly baseId: string | null;

  /**
   * @param baseId the id of the checkpoint that the table begins with; null if the table is empty
   * @param name the file's name in checkpoints; a base that has it under another name is not its
   * base
   */
  constructor(core: FileCore, name: string, baseId: string | null) {
    this.core = core;
    this.name = name;
    this.baseId = baseId;
  }

  async first(used: PageRuns): Promise<PageRuns> {
    const { changes } = this.core;
    const { baseId, name } = this;
    const isKnown = baseId !== null && changes.knowsBase(baseName(baseId, name));
    await inSlices(changes.takeInSlices(used));
    return isKnown ? changes.changed().runs : used;
  }

  changed(used: PageRuns, _table: FileTable, isHurried: boolean): PageRuns {
    return this.core.changes.take(used, { isHurried }).runs;
  }

  committed(id: string): void {
    this.core.changes.setBase(baseName(id, this.name));
  }
}

/** Compares memory with the hashes of the save table: about 10 GiB/s, and as long a pause. */
export class HashDetector implements Detector {
  readonly detection: ChangeDetection = "hashes";
  readonly maxRounds = 1;
  protected readonly core: FileCore;
  private readonly hashSeed: number;

  constructor(core: FileCore, hashSeed: number) {
    this.core = core;
    this.hashSeed = hashSeed;
  }

  async first(used: PageRuns): Promise<PageRuns> {
    return used;
  }

  changed(used: PageRuns, table: FileTable, isHurried: boolean): PageRuns {
    // Between rounds the result would only repeat that of the instant.
    if (!isHurried) return new RunCollector().runs;
    const { mapping, sizeBytes } = this.core;
    const { overlay } = mapping;
    const { frame, hash } = table;
    const { hashSeed } = this;
    // Pages beyond the table are undefined, so they differ.
    const hashes = new PageHashes(
      {
        fd: mapping.fd,
        base: mapping.base,
        sizePages: () => sizeBytes / PAGE_SIZE,
        ...(overlay === null
          ? {}
          : { findData: (page: number, end: number) => overlay.findData(page, end) }),
      },
      {
        isZero: (page) => frame[page] === 0,
        isEqual: (page, contents) =>
          frame[page] !== undefined &&
          frame[page] !== 0 &&
          isHash(hash!, page, hashPage(contents, hashSeed)),
      },
    );
    return hashes.take(used).runs;
  }

  committed(_id: string): void {}
}

/**
 * For a file with mapped pages. The kernel has copied those that were written, and its page map
 * shows which (6 ms for 1 GiB). Hashes are compared for these copies and for pages that are not
 * mapped.
 */
export class MappedDetector extends HashDetector {
  override readonly detection = "pagemap";
  private readonly name: string;
  private readonly baseId: string | null;

  /** @param baseId as in TrackingDetector @param name as in TrackingDetector */
  constructor(core: FileCore, hashSeed: number, name: string, baseId: string | null) {
    super(core, hashSeed);
    this.name = name;
    this.baseId = baseId;
  }

  override async first(used: PageRuns): Promise<PageRuns> {
    const { baseId, name, core } = this;
    const isKnown = baseId !== null && core.mapping.overlay!.hasBase(baseName(baseId, name));
    return isKnown ? this.maybeWritten(used) : used;
  }

  override changed(used: PageRuns, table: FileTable, isHurried: boolean): PageRuns {
    return super.changed(isHurried ? this.maybeWritten(used) : used, table, isHurried);
  }

  override committed(id: string): void {
    this.core.mapping.overlay!.setBase(baseName(id, this.name));
  }

  /** All pages except clean mapped ones, which have not changed since the restore. */
  private maybeWritten(used: PageRuns): PageRuns {
    try {
      return writtenOfMapped(this.core.mapping.overlay!, used).runs;
    } catch (error) {
      // Without /proc any page may have been written.
      if (error instanceof SyscallError) return used;
      throw error;
    }
  }
}

const scratch = new BigUint64Array(1);
const scratchWords = new Uint32Array(scratch.buffer);

/** True if the hash of `page` in a table is `expected`. */
function isHash(hash: Uint32Array, page: number, expected: bigint): boolean {
  scratch[0] = expected;
  return hash[2 * page] === scratchWords[0] && hash[2 * page + 1] === scratchWords[1];
}
