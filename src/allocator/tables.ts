/**
 * The allocator's memory: one anonymous mapping, reserved for the file's whole capacity and touched
 * only where runs start. It has the tables of a SegmentSet (segment/segment-set.ts), one after the
 * other.
 *
 * It is not a SharedArrayBuffer. A large one is expensive to create again once one of its size has
 * been collected, and its whole size would count as heap. Every thread views a prefix at least as
 * long as the file. The mapping is unmapped only after every thread has detached its views.
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
  /** Byte offsets of values, owners, bits and summaries. */
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
   * Views that serve pages [0, sizePages). Views from an earlier call are detached. The collector
   * counts the bytes of a view as future garbage: viewing all tables of a 2 GiB file made a restore
   * stop for two collections. So tables that may never be needed (owners, and each searched class's
   * summary) are viewed on first use.
   */
  view(sizePages: number): SegmentTables {
    this.detach();
    const lengths = segmentLengths(this.layout, Math.max(sizePages, 1));
    const views = this.views;
    const wordsAt = (table: number, length: number) => {
      // These views were detached since, so the memory may be gone.
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
  const tableBytes = [values, 4 * owners, 4 * bits];
  for (let cls = 0; cls < classes; cls++) tableBytes.push(4 * summary);
  const offsets: number[] = [];
  let lengthBytes = 0;
  for (const bytes of tableBytes) {
    offsets.push(lengthBytes);
    lengthBytes += Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;
  }
  return { offsets, lengthBytes };
}
