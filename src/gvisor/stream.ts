/**
 * The arrangement of metadata and page contents in files: the metadata (8-byte
 * little-endian length, then the message), and the contents. The contents are either in a pages
 * file, known-committed ranges one after the other, or in the same stream after the metadata,
 * each range after a header.
 *
 * That header is `WriteHeader` of gVisor's pkg/state (pkg/state/encode.go): a varint. If its top
 * bit is set, the rest is a number of objects; otherwise it is the length of the raw bytes that
 * follow. Contents are raw bytes.
 */
import { CorruptCheckpointError } from "../errors/errors.ts";
import { type CommittedPages, type ImageExtents, PAGE_BYTES } from "./image.ts";
import { type CheckpointLimits, METADATA_BYTES_MAX } from "./metadata.ts";
import { varintLengthBytes, WireReader, WireWriter } from "./wire.ts";

/** Random access to a file's bytes. */
export interface ByteSource {
  /** For error messages. */
  readonly path?: string;
  readonly sizeBytes: number;
  /**
   * Exactly `lengthBytes` bytes. Called only for ranges within `sizeBytes`. It may throw the file's
   * errors (EIO).
   */
  read(offset: number, lengthBytes: number): Uint8Array;
}

/** A source over bytes in memory. */
export function memorySource(bytes: Uint8Array, path?: string): ByteSource {
  return {
    ...(path === undefined ? {} : { path }),
    sizeBytes: bytes.length,
    read: (offset, lengthBytes) => bytes.subarray(offset, offset + lengthBytes),
  };
}

export interface MetadataMessage {
  /** The message. */
  readonly bytes: Uint8Array;
  /** Offset of the message's first byte. */
  readonly offset: number;
  /** Offset after its last byte. */
  readonly end: number;
}

const LENGTH_BYTES = 8;
const HEADER_BYTES_MAX = 10;
const OBJECT_FLAG_HIGH = 0x8000_0000;

/**
 * Reads the metadata at `offset`: its length, and the message.
 *
 * @throws {CorruptCheckpointError} if the file ends before the message does, or the message exceeds
 * `limits`
 */
export function readMetadataMessage(
  source: ByteSource,
  offset = 0,
  limits: CheckpointLimits = {},
): MetadataMessage {
  const where = { ...placeOf(source), section: "metadata", offset };
  const leftBytes = source.sizeBytes - offset - LENGTH_BYTES;
  if (leftBytes < 0)
    throw new CorruptCheckpointError("File ends before the length of the metadata", where);
  const prefix = source.read(offset, LENGTH_BYTES);
  const view = new DataView(prefix.buffer, prefix.byteOffset, LENGTH_BYTES);
  const lengthBytes = view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32;
  if (lengthBytes > leftBytes) {
    throw new CorruptCheckpointError(
      `Metadata of ${lengthBytes} bytes is cut off: ${leftBytes} bytes are left`,
      where,
    );
  }
  const metadataBytesMax = limits.metadataBytesMax ?? METADATA_BYTES_MAX;
  if (lengthBytes > metadataBytesMax) {
    throw new CorruptCheckpointError(
      `Metadata of ${lengthBytes} bytes exceeds the limit of ${metadataBytesMax}`,
      where,
    );
  }
  const first = offset + LENGTH_BYTES;
  return { bytes: source.read(first, lengthBytes), offset: first, end: first + lengthBytes };
}

/** `message` with its length in front. */
export function withLength(message: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(LENGTH_BYTES + message.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(message.length), true);
  bytes.set(message, LENGTH_BYTES);
  return bytes;
}

/** The header of `lengthBytes` of page contents in the form without a pages file. */
export function streamHeader(lengthBytes: number): Uint8Array {
  const writer = new WireWriter(new Uint8Array(varintLengthBytes(lengthBytes)));
  writer.varint(lengthBytes);
  return writer.bytes;
}

export interface LocatedContents {
  readonly extents: ImageExtents;
  /** Offset after the last page's contents: the next MemoryFile's contents begin there. */
  readonly end: number;
}

/**
 * Finds the places of contents in a pages file, from `offset` on.
 *
 * @throws {CorruptCheckpointError} if the file is shorter than the contents
 */
export function locateInPagesFile(
  committed: CommittedPages,
  file: { readonly path?: string; readonly sizeBytes: number },
  offset = 0,
): LocatedContents {
  const extents = new ExtentBuilder();
  let end = offset;
  for (let i = 0; i < committed.start.length; i++) {
    extents.push(committed.start[i]!, committed.length[i]!, end);
    end += committed.length[i]! * PAGE_BYTES;
  }
  if (end > file.sizeBytes) {
    throw new CorruptCheckpointError(
      `Pages file has ${file.sizeBytes} bytes; the metadata accounts for ${end}`,
      {
        ...placeOf(file),
        section: "pages",
      },
    );
  }
  return { extents: extents.finish(), end };
}

/**
 * Finds the places of contents after the metadata, from `offset` on. Reads only the headers.
 *
 * @throws {CorruptCheckpointError} if a header differs from the one that the metadata requires, or
 * contents are cut off
 */
export function locateInStream(
  committed: CommittedPages,
  source: ByteSource,
  offset: number,
): LocatedContents {
  const extents = new ExtentBuilder();
  let next = offset;
  for (let i = 0; i < committed.start.length; i++) {
    const where = { ...placeOf(source), section: "pages", offset: next };
    const reader = new WireReader(
      source.read(next, Math.max(0, Math.min(HEADER_BYTES_MAX, source.sizeBytes - next))),
      where,
    );
    const { low, high } = reader.readHalves();
    if (high >= OBJECT_FLAG_HIGH)
      throw new CorruptCheckpointError("Expected page contents, got objects", where);
    const lengthBytes = committed.length[i]! * PAGE_BYTES;
    const got = high * 2 ** 32 + low;
    if (got !== lengthBytes)
      throw new CorruptCheckpointError(`Expected ${lengthBytes} bytes of pages, got ${got}`, where);
    next += reader.position;
    extents.push(committed.start[i]!, committed.length[i]!, next);
    next += lengthBytes;
    if (next > source.sizeBytes) {
      throw new CorruptCheckpointError(
        `Page contents are cut off: ${next - source.sizeBytes} bytes are missing`,
        where,
      );
    }
  }
  return { extents: extents.finish(), end: next };
}

function placeOf(file: { readonly path?: string }): { path?: string } {
  return file.path === undefined ? {} : { path: file.path };
}

/** Joins extents that are contiguous both in memory and in the file, so one read loads them. */
class ExtentBuilder {
  private readonly start: number[] = [];
  private readonly length: number[] = [];
  private readonly fileOffset: number[] = [];

  push(start: number, length: number, fileOffset: number): void {
    const last = this.start.length - 1;
    if (
      last >= 0 &&
      this.start[last]! + this.length[last]! === start &&
      this.fileOffset[last]! + this.length[last]! * PAGE_BYTES === fileOffset
    ) {
      this.length[last]! += length;
      return;
    }
    this.start.push(start);
    this.length.push(length);
    this.fileOffset.push(fileOffset);
  }

  finish(): ImageExtents {
    return {
      start: new Uint32Array(this.start),
      length: new Uint32Array(this.length),
      fileOffset: new Float64Array(this.fileOffset),
    };
  }
}
