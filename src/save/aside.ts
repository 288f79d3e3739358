/**
 * Aside: memory into which pages are copied while the program is stopped, so that it can continue
 * before they are written.
 *
 * Pages are copied by pread(2) from the memory file. A read through the mapping would give memory
 * to a hole.
 */
import {
  copyMemory,
  MADV_POPULATE_WRITE,
  mapAnonymous,
  readAt,
  SyscallError,
  tryAdvise,
  unmap,
} from "../../ffi/index.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import type { UsedRuns } from "./build-map.ts";
import { areFew, countPages, DataFinder, type DataMemory } from "./data-finder.ts";

/** Runs that were copied, and the places of the copies. */
export interface CopiedRuns extends UsedRuns {
  readonly address: Float64Array;
}

/** A longer run is searched for holes first. */
const DIRECT_PAGES = 64;
/** Memory that is mapped if the prepared memory is too small. */
const SEGMENT_BYTES = 16 * 2 ** 20;

/** The memory of a file that is copied. */
export interface AsideMemory extends DataMemory {
  readonly base: number;
}

interface Segment {
  readonly address: number;
  readonly lengthBytes: number;
}

export class Aside {
  private readonly segments: Segment[] = [];
  /** Free memory of the last segment. */
  private next = 0;
  private end = 0;
  private readonly finder = new DataFinder();

  /** Maps memory and populates it, so that copying causes no faults. */
  makeReady(lengthBytes: number): void {
    if (lengthBytes <= this.end - this.next) return;
    this.addSegment(lengthBytes);
    // A hint: without it the copies cause the faults.
    tryAdvise(this.next, lengthBytes, MADV_POPULATE_WRITE);
  }

  private addSegment(lengthBytes: number): void {
    const address = mapAnonymous(lengthBytes);
    this.segments.push({ address, lengthBytes });
    this.next = address;
    this.end = address + lengthBytes;
  }

  /**
   * Copies the pages of a file's runs that have memory. Calls `onHole` for the others. @throws
   * {SyscallError}
   */
  copy(
    memory: AsideMemory,
    { start, length }: UsedRuns,
    onHole: (start: number, end: number) => void,
  ): CopiedRuns {
    const copied = new CopiedColumns();
    const isOneOfFew = areFew(memory.fd, countPages(length));
    for (let i = 0; i < start.length; i++) {
      const end = start[i]! + length[i]!;
      if (length[i]! <= DIRECT_PAGES) this.copyRun(memory, start[i]!, end, copied);
      else this.copyData(memory, [start[i]!, end], isOneOfFew, copied, onHole);
    }
    return copied.finish();
  }

  private copyData(
    memory: AsideMemory,
    [start, end]: readonly [number, number],
    isOneOfFew: boolean,
    copied: CopiedColumns,
    onHole: (start: number, end: number) => void,
  ): void {
    for (let page = start; page < end; ) {
      const { dataStart, dataEnd } = this.finder.find(memory, page, isOneOfFew);
      const holeEnd = Math.max(page, Math.min(end, dataStart));
      if (page < holeEnd) onHole(page, holeEnd);
      // Holes among few pages are copied as zeros, because searching for them would take longer.
      const known = isOneOfFew ? holeEnd + DIRECT_PAGES : dataEnd;
      const stop = Math.max(holeEnd, Math.min(end, known));
      this.copyRun(memory, holeEnd, stop, copied);
      page = stop;
    }
  }

  private copyRun(
    { fd, base, overlay }: AsideMemory,
    start: number,
    end: number,
    copied: CopiedColumns,
  ): void {
    for (let page = start; page < end; ) {
      if (this.next === this.end) this.addSegment(SEGMENT_BYTES);
      const isMapped = overlay?.isMapped(page) ?? false;
      const stop = overlay?.next(page, end, !isMapped) ?? end;
      const pages = Math.min(stop - page, (this.end - this.next) / PAGE_SIZE);
      const bytes = pages * PAGE_SIZE;
      if (isMapped) copyMemory(this.next, base + page * PAGE_SIZE, bytes);
      else {
        const moved = readAt(fd, this.next, bytes, page * PAGE_SIZE);
        if (moved < 0) throw new SyscallError("pread", -moved);
      }
      copied.add(page, pages, this.next);
      this.next += bytes;
      page += pages;
    }
  }

  close(): void {
    for (const { address, lengthBytes } of this.segments) unmap(address, lengthBytes);
    this.segments.length = this.next = this.end = 0;
  }
}

class CopiedColumns {
  private readonly start: number[] = [];
  private readonly length: number[] = [];
  private readonly address: number[] = [];

  add(start: number, length: number, address: number): void {
    this.start.push(start);
    this.length.push(length);
    this.address.push(address);
  }

  finish(): CopiedRuns {
    return {
      start: Uint32Array.from(this.start),
      length: Uint32Array.from(this.length),
      address: Float64Array.from(this.address),
    };
  }
}
