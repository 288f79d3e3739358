/**
 * Converts `MemoryFileMetadataProto`, gVisor's description of a MemoryFile, to and from columns.
 *
 * Decoding passes over the bytes twice: the first pass counts the entries of each kind, the second
 * fills columns of exactly that length. So memory is bounded by the size of the file, never by a
 * number in it. This file does not check the meaning of entries: see validate.ts.
 *
 * The rules are protobuf's: unknown fields and fields of another wire type are skipped, the last of
 * several scalars counts, absent ones are 0. A map is a repeated message of key and value, and the
 * last entry of a key counts. The schema is pkg/sentry/pgalloc/pgalloc.proto in gVisor.
 */
import { CorruptCheckpointError } from "../errors/errors.ts";
import {
  scalarLengthBytes,
  varintLengthBytes,
  type WirePlace,
  WireReader,
  WireWriter,
} from "./wire.ts";

/** Byte offsets, half-open. An end may be `U64_MAX`. */
export interface RangeColumns {
  readonly start: Float64Array;
  readonly end: Float64Array;
}

export interface UnfreeColumns extends RangeColumns {
  /** References on each page; 0 for void, waste, sub-released, and pages of the other size. */
  readonly refs: Float64Array;
}

export interface MemAcctColumns extends RangeColumns {
  readonly kind: Uint32Array;
  readonly group: Uint32Array;
  /** 1: the pages' contents are in the checkpoint. 0: they are zero. */
  readonly knownCommitted: Uint8Array;
}

export interface SubreleasedColumns {
  /** Byte offset of a huge page; ascending, without duplicates. */
  readonly hugeStart: Float64Array;
  /** How many of its small pages are sub-released. */
  readonly count: Float64Array;
}

export interface GvisorMetadata {
  /** One entry per 1 GiB of the file. */
  readonly chunks: { readonly huge: Uint8Array };
  readonly memAcct: MemAcctColumns;
  readonly unfreeSmall: UnfreeColumns;
  readonly unfreeHuge: UnfreeColumns;
  readonly unwasteSmall: RangeColumns;
  readonly unwasteHuge: RangeColumns;
  readonly subreleased: SubreleasedColumns;
}

/** Limits of a checkpoint. */
export interface CheckpointLimits {
  /** Default 1 GiB. */
  readonly metadataBytesMax?: number;
  /** Default and most: `CHUNKS_MAX` (image.ts). */
  readonly chunksMax?: number;
  /** The most bytes (of chunks) that the MemoryFile may have. Default: no limit. */
  readonly limitBytes?: number;
}

export const METADATA_BYTES_MAX = 2 ** 30;

const VERSION = 1;

/** Tags: field number << 3 | wire type. Each is one byte long. */
const Top = {
  version: 0x08,
  chunks: 0x12,
  memAcct: 0x1a,
  unfreeSmall: 0x22,
  unfreeHuge: 0x2a,
  unwasteSmall: 0x32,
  unwasteHuge: 0x3a,
  subreleased: 0x42,
} as const;
const Field = { first: 0x08, second: 0x10, third: 0x18, fourth: 0x20, fifth: 0x28 } as const;

const rangeColumns = (count: number) => ({
  start: new Float64Array(count),
  end: new Float64Array(count),
});
const unfreeColumns = (count: number) => ({
  ...rangeColumns(count),
  refs: new Float64Array(count),
});
const memAcctColumns = (count: number) => ({
  ...rangeColumns(count),
  kind: new Uint32Array(count),
  group: new Uint32Array(count),
  knownCommitted: new Uint8Array(count),
});

/**
 * Decodes the message in `bytes`.
 *
 * @param place the origin of `bytes`, for error messages
 * @throws {CorruptCheckpointError} if the bytes are not such a message, have another version, or
 * exceed `limits`
 */
export function decodeMetadata(
  bytes: Uint8Array,
  limits: CheckpointLimits = {},
  place: WirePlace = {},
): GvisorMetadata {
  const metadataBytesMax = limits.metadataBytesMax ?? METADATA_BYTES_MAX;
  const where = { section: "metadata", ...place };
  if (bytes.length > metadataBytesMax) {
    throw new CorruptCheckpointError(
      `Metadata of ${bytes.length} bytes exceeds the limit of ${metadataBytesMax}`,
      where,
    );
  }
  const counts = countEntries(new WireReader(bytes, where));
  if (counts.version !== VERSION) {
    const version = counts.version === Infinity ? "2^64-1" : counts.version;
    throw new CorruptCheckpointError(
      `Metadata has version ${version}; only version ${VERSION} is known`,
      where,
    );
  }
  const chunksMax = limits.chunksMax ?? Infinity;
  if (counts.chunks > chunksMax) {
    throw new CorruptCheckpointError(
      `Checkpoint has ${counts.chunks} chunks; at most ${chunksMax} are allowed`,
      where,
    );
  }
  return fillColumns(new WireReader(bytes, where), counts);
}

interface EntryCounts {
  version: number;
  chunks: number;
  memAcct: number;
  unfreeSmall: number;
  unfreeHuge: number;
  unwasteSmall: number;
  unwasteHuge: number;
  subreleased: number;
}

function countEntries(reader: WireReader): EntryCounts {
  const counts: EntryCounts = {
    version: 0,
    chunks: 0,
    memAcct: 0,
    unfreeSmall: 0,
    unfreeHuge: 0,
    unwasteSmall: 0,
    unwasteHuge: 0,
    subreleased: 0,
  };
  while (!reader.done) {
    const tag = reader.readTag();
    if (tag === Top.version) {
      counts.version = reader.readU64();
      continue;
    }
    if (tag === Top.memAcct) counts.memAcct++;
    else if (tag === Top.unfreeSmall) counts.unfreeSmall++;
    else if (tag === Top.unfreeHuge) counts.unfreeHuge++;
    else if (tag === Top.unwasteSmall) counts.unwasteSmall++;
    else if (tag === Top.unwasteHuge) counts.unwasteHuge++;
    else if (tag === Top.subreleased) counts.subreleased++;
    else if (tag === Top.chunks) counts.chunks++;
    reader.skip(tag);
  }
  return counts;
}

function fillColumns(reader: WireReader, counts: EntryCounts): GvisorMetadata {
  const huge = new Uint8Array(counts.chunks);
  const memAcct = memAcctColumns(counts.memAcct);
  const unfreeSmall = unfreeColumns(counts.unfreeSmall);
  const unfreeHuge = unfreeColumns(counts.unfreeHuge);
  const unwasteSmall = rangeColumns(counts.unwasteSmall);
  const unwasteHuge = rangeColumns(counts.unwasteHuge);
  const subreleased = rangeColumns(counts.subreleased);
  const next: EntryCounts = { ...counts };
  for (const key of Object.keys(next) as (keyof EntryCounts)[]) next[key] = 0;
  while (!reader.done) {
    const tag = reader.readTag();
    if (tag === Top.memAcct) readMemAcct(reader, memAcct, next.memAcct++);
    else if (tag === Top.unfreeSmall) readUnfree(reader, unfreeSmall, next.unfreeSmall++);
    else if (tag === Top.unfreeHuge) readUnfree(reader, unfreeHuge, next.unfreeHuge++);
    else if (tag === Top.unwasteSmall)
      readPair(reader, unwasteSmall.start, unwasteSmall.end, next.unwasteSmall++);
    else if (tag === Top.unwasteHuge)
      readPair(reader, unwasteHuge.start, unwasteHuge.end, next.unwasteHuge++);
    else if (tag === Top.subreleased)
      readPair(reader, subreleased.start, subreleased.end, next.subreleased++);
    else if (tag === Top.chunks) huge[next.chunks++] = readChunk(reader);
    else reader.skip(tag);
  }
  return {
    chunks: { huge },
    memAcct,
    unfreeSmall,
    unfreeHuge,
    unwasteSmall,
    unwasteHuge,
    subreleased: sortedMap(subreleased.start, subreleased.end),
  };
}

function readMemAcct(reader: WireReader, columns: MemAcctColumns, index: number): void {
  const outer = reader.enter();
  while (!reader.done) {
    const tag = reader.readTag();
    if (tag === Field.first) columns.start[index] = reader.readU64();
    else if (tag === Field.second) columns.end[index] = reader.readU64();
    else if (tag === Field.third) columns.kind[index] = reader.readU32();
    else if (tag === Field.fourth) columns.group[index] = reader.readU32();
    else if (tag === Field.fifth) columns.knownCommitted[index] = reader.readBool();
    else reader.skip(tag);
  }
  reader.leave(outer);
}

function readUnfree(reader: WireReader, columns: UnfreeColumns, index: number): void {
  const outer = reader.enter();
  while (!reader.done) {
    const tag = reader.readTag();
    if (tag === Field.first) columns.start[index] = reader.readU64();
    else if (tag === Field.second) columns.end[index] = reader.readU64();
    else if (tag === Field.third) columns.refs[index] = reader.readU64();
    else reader.skip(tag);
  }
  reader.leave(outer);
}

/** FileRangeProto, and an entry of a map: two 64-bit values. */
function readPair(
  reader: WireReader,
  first: Float64Array,
  second: Float64Array,
  index: number,
): void {
  const outer = reader.enter();
  while (!reader.done) {
    const tag = reader.readTag();
    if (tag === Field.first) first[index] = reader.readU64();
    else if (tag === Field.second) second[index] = reader.readU64();
    else reader.skip(tag);
  }
  reader.leave(outer);
}

function readChunk(reader: WireReader): 0 | 1 {
  let huge: 0 | 1 = 0;
  const outer = reader.enter();
  while (!reader.done) {
    const tag = reader.readTag();
    if (tag === Field.first) huge = reader.readBool();
    else reader.skip(tag);
  }
  reader.leave(outer);
  return huge;
}

/** Sorts a map's entries by key and keeps the last of each key: Go writes maps in random order. */
function sortedMap(keys: Float64Array, values: Float64Array): SubreleasedColumns {
  const order = new Uint32Array(keys.length);
  for (let i = 0; i < order.length; i++) order[i] = i;
  // Equal keys keep the order of the file. Infinity - Infinity is NaN, hence the comparisons.
  order.sort((a, b) => (keys[a]! < keys[b]! ? -1 : keys[a]! > keys[b]! ? 1 : a - b));
  const hugeStart = new Float64Array(order.length);
  const count = new Float64Array(order.length);
  let length = 0;
  for (const entry of order) {
    const key = keys[entry]!;
    if (length > 0 && hugeStart[length - 1] === key) length--;
    hugeStart[length] = key;
    count[length++] = values[entry]!;
  }
  return { hugeStart: hugeStart.slice(0, length), count: count.slice(0, length) };
}

/**
 * Writes the message: the bytes that Go's protobuf writes for it, with the map sorted by key.
 *
 * @throws {RangeError} for a value that is neither an integer in [0, 2^53) nor `U64_MAX`
 */
export function encodeMetadata(metadata: GvisorMetadata): Uint8Array {
  let sizeBytes = scalarLengthBytes(VERSION);
  const messageLengthBytes = (body: number) => 1 + varintLengthBytes(body) + body;
  const { chunks, memAcct, unfreeSmall, unfreeHuge, unwasteSmall, unwasteHuge, subreleased } =
    metadata;
  for (const huge of chunks.huge) sizeBytes += messageLengthBytes(scalarLengthBytes(huge));
  for (let i = 0; i < memAcct.start.length; i++)
    sizeBytes += messageLengthBytes(memAcctLengthBytes(memAcct, i));
  for (const columns of [unfreeSmall, unfreeHuge]) {
    for (let i = 0; i < columns.start.length; i++)
      sizeBytes += messageLengthBytes(unfreeLengthBytes(columns, i));
  }
  for (const { start, end } of [unwasteSmall, unwasteHuge]) {
    for (let i = 0; i < start.length; i++)
      sizeBytes += messageLengthBytes(scalarLengthBytes(start[i]!) + scalarLengthBytes(end[i]!));
  }
  for (let i = 0; i < subreleased.hugeStart.length; i++)
    sizeBytes += messageLengthBytes(entryLengthBytes(subreleased, i));

  const writer = new WireWriter(new Uint8Array(sizeBytes));
  writer.scalar(Top.version, VERSION);
  for (const huge of chunks.huge) {
    openMessage(writer, Top.chunks, scalarLengthBytes(huge));
    writer.scalar(Field.first, huge);
  }
  for (let i = 0; i < memAcct.start.length; i++) writeMemAcct(writer, memAcct, i);
  writeUnfree(writer, Top.unfreeSmall, unfreeSmall);
  writeUnfree(writer, Top.unfreeHuge, unfreeHuge);
  writeRanges(writer, Top.unwasteSmall, unwasteSmall);
  writeRanges(writer, Top.unwasteHuge, unwasteHuge);
  writeSubreleased(writer, subreleased);
  return writer.bytes;
}

function openMessage(writer: WireWriter, tag: number, bodyLengthBytes: number): void {
  writer.bytes[writer.position++] = tag;
  writer.varint(bodyLengthBytes);
}

function memAcctLengthBytes(columns: MemAcctColumns, index: number): number {
  return (
    scalarLengthBytes(columns.start[index]!) +
    scalarLengthBytes(columns.end[index]!) +
    scalarLengthBytes(columns.kind[index]!) +
    scalarLengthBytes(columns.group[index]!) +
    scalarLengthBytes(columns.knownCommitted[index]!)
  );
}

function unfreeLengthBytes(columns: UnfreeColumns, index: number): number {
  return (
    scalarLengthBytes(columns.start[index]!) +
    scalarLengthBytes(columns.end[index]!) +
    scalarLengthBytes(columns.refs[index]!)
  );
}

/** Key and value of a map's entry are written even if they are 0. */
function entryLengthBytes(columns: SubreleasedColumns, index: number): number {
  return (
    2 + varintLengthBytes(columns.hugeStart[index]!) + varintLengthBytes(columns.count[index]!)
  );
}

function writeMemAcct(writer: WireWriter, columns: MemAcctColumns, index: number): void {
  openMessage(writer, Top.memAcct, memAcctLengthBytes(columns, index));
  writer.scalar(Field.first, columns.start[index]!);
  writer.scalar(Field.second, columns.end[index]!);
  writer.scalar(Field.third, columns.kind[index]!);
  writer.scalar(Field.fourth, columns.group[index]!);
  writer.scalar(Field.fifth, columns.knownCommitted[index]!);
}

function writeUnfree(writer: WireWriter, tag: number, columns: UnfreeColumns): void {
  for (let i = 0; i < columns.start.length; i++) {
    openMessage(writer, tag, unfreeLengthBytes(columns, i));
    writer.scalar(Field.first, columns.start[i]!);
    writer.scalar(Field.second, columns.end[i]!);
    writer.scalar(Field.third, columns.refs[i]!);
  }
}

function writeRanges(writer: WireWriter, tag: number, { start, end }: RangeColumns): void {
  for (let i = 0; i < start.length; i++) {
    openMessage(writer, tag, scalarLengthBytes(start[i]!) + scalarLengthBytes(end[i]!));
    writer.scalar(Field.first, start[i]!);
    writer.scalar(Field.second, end[i]!);
  }
}

function writeSubreleased(writer: WireWriter, columns: SubreleasedColumns): void {
  for (let i = 0; i < columns.hugeStart.length; i++) {
    openMessage(writer, Top.subreleased, entryLengthBytes(columns, i));
    writer.bytes[writer.position++] = Field.first;
    writer.varint(columns.hugeStart[i]!);
    writer.bytes[writer.position++] = Field.second;
    writer.varint(columns.count[i]!);
  }
}
