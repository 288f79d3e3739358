/**
 * All frames that a save may use: those of its base and those that it has written, numbered in the
 * order of addition.
 */
import type { FrameRows } from "./save-table.ts";

export class FrameList {
  /** Index of the page file in the save's list. */
  readonly pageFile: number[] = [];
  readonly codec: number[] = [];
  readonly pages: number[] = [];
  readonly offset: number[] = [];
  readonly storedBytes: number[] = [];

  get count(): number {
    return this.codec.length;
  }

  /** Adds a frame. Returns its number. */
  add(
    pageFile: number,
    frame: { codec: number; pages: number; offset: number; storedBytes: number },
  ): number {
    this.pageFile.push(pageFile);
    this.codec.push(frame.codec);
    this.pages.push(frame.pages);
    this.offset.push(frame.offset);
    this.storedBytes.push(frame.storedBytes);
    return this.codec.length - 1;
  }

  addRows(pageFile: number, rows: FrameRows, count: number): void {
    for (let i = 0; i < count; i++)
      this.add(pageFile, {
        codec: rows.codec[i]!,
        pages: rows.pages[i]!,
        offset: rows.offset[i]!,
        storedBytes: rows.storedBytes[i]!,
      });
  }
}
