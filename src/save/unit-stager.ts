/**
 * Stages the pages of one unit of memory that must be stored: finds pages with memory, leaves out
 * zeros and pages whose contents the base has, copies the others, computes checksums and hashes,
 * and encodes the frame.
 *
 * SEEK_DATA and SEEK_HOLE show exactly which pages have memory, and touch none. So a save commits
 * nothing; gVisor reads uncommitted pages and must decommit them again. Pages are copied before
 * they are checked, because the program may write to them meanwhile, and a checksum must be that of
 * the written bytes.
 */
import { type Codec, CodecId, REFUSED } from "../codec/codec.ts";
import { crc32, hashPage } from "../checkpoint/format.ts";
import {
  bufferAt,
  copyMemory,
  detach,
  isZero,
  mapAnonymous,
  unmap,
  zeroMemory,
} from "../../ffi/index.ts";
import type { Overlay } from "../memory/overlay.ts";
import { HUGE_PAGE_SIZE as UNIT_BYTES, PAGE_SIZE } from "../pages/units.ts";
import { DataFinder, type FullUnits } from "./data-finder.ts";
import type { FileTable } from "./save-table.ts";

export const PAGES_PER_UNIT = UNIT_BYTES / PAGE_SIZE;

/** A MemoryFile as seen by a writing thread. */
export interface StagedFile {
  readonly base: number;
  readonly fd: number;
  readonly overlay: Overlay | null;
  readonly start: Uint32Array;
  readonly length: Uint32Array;
  /** The place of each run's copy; null: the runs are in the file's mapping. */
  readonly address: Float64Array | null;
  /** See data-finder.ts. */
  readonly areFew: boolean;
  readonly fullUnits?: FullUnits;
  readonly table: FileTable;
}

/** Pages [start, end), whose frame begins at a page of the output. */
interface PageSpan {
  readonly start: number;
  readonly end: number;
  readonly outputPage: number;
}

export interface StagedUnit {
  /** Pages of the frame, in order. */
  readonly page: Uint32Array;
  readonly crc: Uint32Array;
  readonly hash: BigUint64Array;
  /** The same as pairs of words: reading a u64 makes a BigInt, which takes as long as the hash. */
  readonly hashWords: Uint32Array;
  count: number;
  codec: CodecId;
  storedBytes: number;
  zeroPages: number;
  reusedPages: number;
}

/**
 * Native memory with a view for each page. Making them each time takes as long as the checksums.
 */
class PageBuffer {
  readonly address: number;
  readonly views: readonly Uint8Array[];
  private readonly buffer: ArrayBuffer;
  private readonly lengthBytes: number;

  constructor(pages: number) {
    this.lengthBytes = pages * PAGE_SIZE;
    this.address = mapAnonymous(this.lengthBytes);
    this.buffer = bufferAt(this.address, this.lengthBytes);
    this.views = Array.from(
      { length: pages },
      (_, i) => new Uint8Array(this.buffer, i * PAGE_SIZE, PAGE_SIZE),
    );
  }

  close(): void {
    detach(this.buffer);
    unmap(this.address, this.lengthBytes);
  }
}

function makeHashes(count: number): Pick<StagedUnit, "hash" | "hashWords"> {
  const hash = new BigUint64Array(count);
  return { hash, hashWords: new Uint32Array(hash.buffer) };
}

export interface StagerOptions {
  /** null: frames are raw. */
  readonly codec: Codec | null;
  readonly hashSeed: number;
  /** True to store pages whose contents equal the table's, and to leave out all others. */
  readonly isMove: boolean;
}

export class UnitStager {
  readonly unit: StagedUnit = {
    page: new Uint32Array(PAGES_PER_UNIT),
    crc: new Uint32Array(PAGES_PER_UNIT),
    ...makeHashes(PAGES_PER_UNIT),
    count: 0,
    codec: CodecId.Raw,
    storedBytes: 0,
    zeroPages: 0,
    reusedPages: 0,
  };
  private readonly codec: Codec | null;
  private readonly hashSeed: number;
  private readonly isMove: boolean;
  private readonly output: PageBuffer;
  /** Memory for pages before they are encoded; null if they are copied to the output. */
  private readonly scratch: PageBuffer | null;
  private readonly finder = new DataFinder();

  constructor({ codec, hashSeed, isMove }: StagerOptions, outputPages: number) {
    this.codec = codec;
    this.hashSeed = hashSeed;
    this.isMove = isMove;
    this.output = new PageBuffer(outputPages);
    this.scratch = codec === null ? null : new PageBuffer(PAGES_PER_UNIT);
  }

  get outputAddress(): number {
    return this.output.address;
  }

  close(): void {
    this.output.close();
    this.scratch?.close();
  }

  /**
   * Stages unit `index`, whose first used run is `run`, and writes its frame to the output from
   * `outputPage` on, which has room for a unit. The frame takes whole pages there.
   */
  stage(file: StagedFile, index: number, run: number, outputPage: number): void {
    const { unit } = this;
    unit.count = unit.zeroPages = unit.reusedPages = unit.storedBytes = 0;
    const first = index * PAGES_PER_UNIT;
    const end = first + PAGES_PER_UNIT;
    for (let i = run; i < file.start.length && file.start[i]! < end; i++) {
      const from = Math.max(first, file.start[i]!);
      const to = Math.min(end, file.start[i]! + file.length[i]!);
      if (file.address === null) this.stageMapped(file, { start: from, end: to, outputPage });
      else {
        const origin = file.address[i]! - file.start[i]! * PAGE_SIZE;
        this.stagePages(file.table, origin, { start: from, end: to, outputPage });
      }
    }
    this.encode(outputPage);
  }

  /** Stages the pages that have memory. */
  private stageMapped(file: StagedFile, { start, end, outputPage }: PageSpan): void {
    for (let page = start; page < end; ) {
      const { dataStart, dataEnd } = this.finder.find(file, page, file.areFew);
      const holeEnd = Math.max(page, Math.min(end, dataStart));
      if (page < holeEnd && !this.isMove) file.table.frame.fill(0, page, holeEnd);
      const stop = Math.max(holeEnd, Math.min(end, dataEnd));
      this.stagePages(file.table, file.base, { start: holeEnd, end: stop, outputPage });
      page = stop;
    }
  }

  /** Copies the pages that must be stored. Page 0 would be at `origin`. */
  private stagePages(table: FileTable, origin: number, { start, end, outputPage }: PageSpan): void {
    const { unit, hashSeed } = this;
    const { address: target, views } = this.scratch ?? this.output;
    const firstPage = this.scratch === null ? outputPage : 0;
    for (let page = start; page < end; page++) {
      const address = origin + page * PAGE_SIZE;
      if (isZero(address, PAGE_SIZE)) {
        if (this.isMove) continue;
        unit.zeroPages++;
        table.frame[page] = 0;
        continue;
      }
      const at = unit.count;
      const view = views[firstPage + at]!;
      copyMemory(target + (firstPage + at) * PAGE_SIZE, address, PAGE_SIZE);
      unit.crc[at] = crc32(view);
      unit.page[at] = page;
      if (table.hash !== null) {
        unit.hash[at] = hashPage(view, hashSeed);
        const isStored = this.isStored(table, page, at);
        if (isStored !== this.isMove) {
          if (isStored) unit.reusedPages++;
          continue;
        }
      }
      unit.count++;
    }
  }

  /** True if the table has `page` with the contents of the unit's page `at`. */
  private isStored({ frame, crc, hash }: FileTable, page: number, at: number): boolean {
    const { unit } = this;
    return (
      frame[page] !== 0 &&
      crc[page] === unit.crc[at] &&
      hash![2 * page] === unit.hashWords[2 * at] &&
      hash![2 * page + 1] === unit.hashWords[2 * at + 1]
    );
  }

  /** Encodes the frame: compressed if that saves at least 1/16 of it in whole pages. */
  private encode(outputPage: number): void {
    const { unit, codec, scratch } = this;
    const lengthBytes = unit.count * PAGE_SIZE;
    unit.codec = CodecId.Raw;
    unit.storedBytes = lengthBytes;
    if (codec === null || scratch === null || lengthBytes === 0) return;
    const source = scratch.address;
    const destination = this.output.address + outputPage * PAGE_SIZE;
    const capacityBytes = PAGE_SIZE * Math.floor((unit.count * 15) / 16);
    const stored =
      capacityBytes === 0
        ? REFUSED
        : codec.encode({ source, lengthBytes, destination, capacityBytes });
    if (stored === REFUSED) {
      copyMemory(destination, source, lengthBytes);
      return;
    }
    const padding = (PAGE_SIZE - (stored % PAGE_SIZE)) % PAGE_SIZE;
    if (padding > 0) zeroMemory(destination + stored, padding);
    unit.codec = codec.id;
    unit.storedBytes = stored;
  }
}
