/**
 * The allocator's memory: one anonymous mapping, reserved for the file's whole capacity and touched
 * only where runs start, with the tables of a SegmentSet (segment/segment-set.ts) one behind the
 * other.
 *
 * It is no SharedArrayBuffer, because a large one is expensive to create again once one of its size
 * has been collected, and because its whole size would count as heap. Every thread views a prefix,
 * as long as the file or longer. The mapping is unmapped only after every thread has detached its
 * views.
 */
import { bufferAt, detach, mapAnonymous, unmap } from "../../ffi/index.ts";
import {
  type SegmentLayout,
  type SegmentTables,
  segmentLayout,
  segmentLengths,
} from "../segment/layout.ts";
import { PAGE_SIZE } from "../pages/units.ts";

export class TableMemory {
  readonly address: number;
  readonly layout: SegmentLayout;
  private readonly classes: number;
  private readonly lengthBytes: number;
  /** Of values, owners, bits and summaries. */
  private readonly offsets: readonly number[];
  private views: ArrayBuffer[] = [];

  private constructor(address: number | undefined, capacityPages: number, classes: number) {
    this.layout = segmentLayout(capacityPages);
    this.classes = classes;
    const { offsets, lengthBytes } = placeTables(this.layout, capacityPages, classes);
    this.offsets = offsets;
    this.lengthBytes = lengthBytes;
    this.address = address ?? mapAnonymous(lengthBytes);
  }

  /** Bytes of the mapping for a file of that capacity. */
  static byteLength(capacityPages: number, classes: number): number {
    return placeTables(segmentLayout(capacityPages), capacityPages, classes).lengthBytes;
  }

  static create(capacityPages: number, classes: number): TableMemory {
    return new TableMemory(undefined, capacityPages, classes);
  }

  static attach(address: number, capacityPages: number, classes: number): TableMemory {
    return new TableMemory(address, capacityPages, classes);
  }

  /**
   * Views that serve pages [0, sizePages); the ones handed out before are detached. The collector
   * counts the bytes of a view as garbage to come: those of all tables together, for a file of 2
   * GiB, made a restore stop for a collection, twice. So what may never be needed (owners, and each
   * searched class's summary) is viewed when it is looked at first.
   */
  view(sizePages: number): SegmentTables {
    this.detach();
    const lengths = segmentLengths(this.layout, Math.max(sizePages, 1));
    const views = this.views;
    const wordsAt = (table: number, length: number) => {
      // Detached since: there may be no memory any more.
      if (views !== this.views) return new Int32Array(0);
      return new Int32Array(this.bufferAt(this.offsets[table]!, 4 * length));
    };
    let owners: Int32Array | undefined;
    const summaries: Int32Array[] = [];
    return {
      values: new Uint8Array(this.bufferAt(this.offsets[0]!, lengths.values)),
      bits: wordsAt(2, lengths.bits),
      classes: this.classes,
      owners: () => (owners ??= wordsAt(1, lengths.owners)),
      summary: (cls) => (summaries[cls] ??= wordsAt(3 + cls, lengths.summary)),
    };
  }

  private bufferAt(offset: number, lengthBytes: number): ArrayBuffer {
    const buffer = bufferAt(this.address + offset, lengthBytes);
    this.views.push(buffer);
    return buffer;
  }

  detach(): void {
    for (const buffer of this.views) detach(buffer);
    this.views = [];
  }

  /** Precondition: no thread has views any more. */
  unmap(): void {
    unmap(this.address, this.lengthBytes);
  }
}

/** Where each table begins in the mapping, in bytes, and where the last one ends. */
function placeTables(
  layout: SegmentLayout,
  pages: number,
  classes: number,
): { offsets: number[]; lengthBytes: number } {
  const { values, owners, bits, summary } = segmentLengths(layout, pages);
  const summaries = Array.from({ length: classes }, () => 4 * summary);
  const offsets: number[] = [];
  let lengthBytes = 0;
  for (const bytes of [values, 4 * owners, 4 * bits, ...summaries]) {
    offsets.push(lengthBytes);
    lengthBytes += Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;
  }
  return { offsets, lengthBytes };
}
