/**
 * Codec: how the bytes of a frame are stored. Raw, lz4 (block format) or zstd (one frame, with its
 * content size).
 *
 * A codec works on native memory: sources and destinations are addresses. It never writes behind
 * `capacityBytes`. Damaged input is a result (-1), not a crash: checkpoints come from disks and
 * networks. Checksums of pages are not the codec's work; a frame that decodes to other bytes is
 * found by those.
 */

/** Codec of a frame: what a checkpoint stores, and a column value of the page map. */
export const CodecId = { Raw: 0, Lz4: 1, Zstd: 2 } as const;
export type CodecId = (typeof CodecId)[keyof typeof CodecId];

/** What a program asks for. */
export type Compression = "none" | "lz4" | "zstd";

/** The result of `encode` for contents that do not fit, and of `decode` for a damaged frame. */
export const REFUSED = -1;

export interface Encoding {
  /** Address of the contents. */
  readonly source: number;
  readonly lengthBytes: number;
  /** Address of the frame. */
  readonly destination: number;
  /** The most bytes that the frame may have. */
  readonly capacityBytes: number;
}

export interface Decoding {
  /** Address of the frame. */
  readonly source: number;
  readonly storedBytes: number;
  /** Address of the contents. */
  readonly destination: number;
  /** Exactly so many bytes are expected, and at most so many are written. */
  readonly lengthBytes: number;
}

export interface Codec {
  readonly id: CodecId;
  readonly name: Compression;
  /**
   * Writes the frame of the contents and returns its bytes; REFUSED if they are more than
   * `capacityBytes`. Memory up to `destination + capacityBytes` may have changed either way.
   */
  encode(encoding: Encoding): number;
  /**
   * Writes the contents of the frame and returns `lengthBytes`; REFUSED if the frame is damaged or
   * has another length. Memory up to `destination + lengthBytes` may have changed either way.
   */
  decode(decoding: Decoding): number;
}
