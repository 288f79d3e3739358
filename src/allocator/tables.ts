/**
 * The allocator's memory: one anonymous mapping, reserved for the file's whole capacity and touched only where runs
 * start, with the tables of a SegmentSet (segment/segment-set.ts) one behind the other.
 *
 * It is no SharedArrayBuffer, because a large one is expensive to create again once one of its size has been collected,
 * and because its whole size would count as heap. Every thread views the prefix that the file has grown to. The
 * mapping is unmapped only after every thread has detached its views.
 */
import { bufferAt, detach, mapAnonymous, unmap } from "../../ffi/index.ts";
import { type SegmentLayout, type SegmentTables, segmentLayout, segmentWords } from "../segment/index.ts";
import { PAGE_SIZE } from "../units.ts";

export class TableMemory {
  readonly address: number;
  readonly layout: SegmentLayout;
  private readonly lengthBytes: number;
  private readonly offsets: readonly number[];
  private views: ArrayBuffer[] = [];

  private constructor(address: number | undefined, capacityPages: number, classes: number) {
    this.layout = segmentLayout(capacityPages);
    const words = segmentWords(this.layout, capacityPages);
    const sizes = [words.records, words.bits, ...Array.from({ length: classes }, () => words.summary)];
    const offsets: number[] = [];
    let end = 0;
    for (const size of sizes) {
      offsets.push(end);
      end += Math.ceil((4 * size) / PAGE_SIZE) * PAGE_SIZE;
    }
    this.offsets = offsets;
    this.lengthBytes = end;
    this.address = address ?? mapAnonymous(end);
  }

  static create(capacityPages: number, classes: number): TableMemory {
    return new TableMemory(undefined, capacityPages, classes);
  }

  static attach(address: number, capacityPages: number, classes: number): TableMemory {
    return new TableMemory(address, capacityPages, classes);
  }

  /** Views that serve pages [0, sizePages); the ones handed out before are detached. */
  view(sizePages: number): SegmentTables {
    this.detach();
    const words = segmentWords(this.layout, Math.max(sizePages, 1));
    const [records, bits, ...summaries] = this.offsets.map((offset, table) => {
      const count = table === 0 ? words.records : table === 1 ? words.bits : words.summary;
      const buffer = bufferAt(this.address + offset, 4 * count);
      this.views.push(buffer);
      return new Int32Array(buffer);
    });
    return { records: records!, bits: bits!, summaries };
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
