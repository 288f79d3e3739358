/**
 * Codec: how the bytes of a frame are stored. Raw, lz4 (block format) or zstd (one frame, with its
 * content size).
 *
 * A codec works on native memory: sources and destinations are addresses. It never writes beyond
 * `capacityBytes`. Damaged input gives REFUSED (-1), not a crash, because checkpoints come from
 * disks and networks. Codecs verify no page checksums. Those find a frame that decodes to wrong
 * bytes.
 */

/** Codec of a frame, as checkpoints store it: a column value of the page map. */
export const CodecId = { Raw: 0, Lz4: 1, Zstd: 2 } as const;
export type CodecId = (typeof CodecId)[keyof typeof CodecId];

/** The compressions that a program can choose. */
export type Compression = "none" | "lz4" | "zstd";

/** `encode` returns it for contents that do not fit, `decode` for a damaged frame. */
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
  /** The length of the contents. `decode` expects exactly this many bytes and never writes more. */
  readonly lengthBytes: number;
}

export interface Codec {
  readonly id: CodecId;
  readonly name: Compression;
  /**
   * Writes the frame of the contents and returns its length in bytes; REFUSED if that is more than
   * `capacityBytes`. In both cases memory up to `destination + capacityBytes` may have changed.
   */
  encode(encoding: Encoding): number;
  /**
   * Writes the contents of the frame and returns `lengthBytes`; REFUSED if the frame is damaged or
   * has another length. In both cases memory up to `destination + lengthBytes` may have changed.
   */
  decode(decoding: Decoding): number;
}
