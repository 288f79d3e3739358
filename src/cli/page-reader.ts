/**
 * Reads pages of a checkpoint one after another and decodes compressed frames, for inspection.
 * Loads do not use it.
 */
import { bufferAt, detach, errnoCode, mapAnonymous, readAt, unmap } from "../../ffi/index.ts";
import type { OpenContent } from "../checkpoint/directory.ts";
import type { FrameColumns } from "../checkpoint/page-map.ts";
import { CodecId, REFUSED } from "../codec/codec.ts";
import { openCodec } from "../codec/open-codec.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../pages/units.ts";

const READ_BYTES = 1024 * 1024;
const BUFFER_BYTES = HUGE_PAGE_SIZE;

export class PageReader implements Disposable {
  readonly pageBytes = PAGE_SIZE;
  private readonly contents: readonly (OpenContent | null)[];
  private readonly stored = mapAnonymous(BUFFER_BYTES);
  private readonly decoded = mapAnonymous(BUFFER_BYTES);
  private readonly storedBytes = bufferAt(this.stored, BUFFER_BYTES);
  private readonly decodedBytes = bufferAt(this.decoded, BUFFER_BYTES);
  /**
   * The contents of the buffers: bytes [start, start + filled) of a content, and the decoded frame.
   */
  private content = -1;
  private start = 0;
  private filled = 0;
  private frames: FrameColumns | undefined;
  private row = -1;
  private problem: string | undefined;

  constructor(contents: readonly (OpenContent | null)[]) {
    this.contents = contents;
  }

  [Symbol.dispose](): void {
    detach(this.storedBytes);
    detach(this.decodedBytes);
    unmap(this.stored, BUFFER_BYTES);
    unmap(this.decoded, BUFFER_BYTES);
  }

  /**
   * The bytes of a frame's page, valid until the next call; or the reason why they cannot be read.
   */
  read(frames: FrameColumns, row: number, framePage: number): Uint8Array | string {
    return frames.codec[row] === CodecId.Raw
      ? this.readRaw(frames, row, framePage)
      : this.readCompressed(frames, row, framePage);
  }

  private readRaw(frames: FrameColumns, row: number, framePage: number): Uint8Array | string {
    const content = frames.content[row]!;
    const offset = frames.offset[row]! + framePage * PAGE_SIZE;
    const isBuffered =
      this.content === content &&
      offset >= this.start &&
      offset + PAGE_SIZE <= this.start + this.filled;
    if (!isBuffered) {
      const problem = this.fill(content, offset, READ_BYTES);
      // If a large read fails, the page alone may be readable.
      if (problem !== undefined) {
        const failure = this.fill(content, offset, PAGE_SIZE);
        if (failure !== undefined) return failure;
      }
      if (this.filled < PAGE_SIZE) return "truncated";
    }
    return new Uint8Array(this.storedBytes, offset - this.start, PAGE_SIZE);
  }

  private fill(content: number, offset: number, lengthBytes: number): string | undefined {
    this.frames = undefined;
    this.content = -1;
    const file = this.contents[content];
    if (file === null || file === undefined) return "missing";
    const moved = readAt(file.fd, this.stored, lengthBytes, offset);
    if (moved < 0) return errnoCode(-moved);
    this.content = content;
    this.start = offset;
    this.filled = moved;
    return undefined;
  }

  private readCompressed(
    frames: FrameColumns,
    row: number,
    framePage: number,
  ): Uint8Array | string {
    if (this.frames !== frames || this.row !== row) {
      this.problem = this.decode(frames, row);
      this.frames = frames;
      this.row = row;
    }
    return this.problem ?? new Uint8Array(this.decodedBytes, framePage * PAGE_SIZE, PAGE_SIZE);
  }

  private decode(frames: FrameColumns, row: number): string | undefined {
    const storedBytes = frames.storedBytes[row]!;
    const paddedBytes = Math.ceil(storedBytes / PAGE_SIZE) * PAGE_SIZE;
    const problem = this.fill(frames.content[row]!, frames.offset[row]!, paddedBytes);
    if (problem !== undefined) return problem;
    if (this.filled < paddedBytes) return "truncated";
    const padding = new Uint8Array(this.storedBytes, storedBytes, paddedBytes - storedBytes);
    if (padding.some((byte) => byte !== 0)) return "padding";
    const lengthBytes = frames.pages[row]! * PAGE_SIZE;
    const decoded = openCodec(frames.codec[row] as CodecId).decode({
      source: this.stored,
      storedBytes,
      destination: this.decoded,
      lengthBytes,
    });
    return decoded === REFUSED ? "frame" : undefined;
  }
}
