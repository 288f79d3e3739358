/**
 * Iovec coalescing: turns many small pieces of memory, each with a place in a file, into few
 * operations.
 *
 * - Two pieces that follow each other both in memory and in the file become one segment.
 * - Pieces that follow each other only in the file become segments of one vector operation.
 * - An operation has at most `maxIovecs` segments and `maxBytes` bytes; a longer piece is cut. If
 *   all lengths and `maxBytes` are multiples of a block size (O_DIRECT), so is every cut.
 *
 * One greedy pass in the given order, as in gVisor's pgalloc (save_restore.go: combineReads,
 * canMergeIovecAndSlice): the caller sorts by file offset. Pure, with typed arrays in and out and
 * no object for a piece: O(pieces + bytes / maxBytes).
 */
import { checkInteger, MAX_IOVECS } from "../../ffi/index.ts";

/** Linux moves at most this many bytes in one call (MAX_RW_COUNT). */
export const MAX_TRANSFER_BYTES = 0x7ffff000;

/**
 * Piece i is `lengths[i]` bytes at native address `addresses[i]`, for `offsets[i]` of the file.
 * Empty pieces are skipped.
 */
export interface Pieces {
  readonly addresses: Float64Array;
  readonly offsets: Float64Array;
  readonly lengths: Float64Array;
  readonly count: number;
}

export interface CoalesceLimits {
  /** Most bytes of one operation, in [1, MAX_TRANSFER_BYTES]. */
  readonly maxBytes: number;
  /** Most segments of one operation, in [1, 1024]. Default: 1024 (IOV_MAX). */
  readonly maxIovecs?: number;
}

/**
 * Operation i moves `lengths[i]` bytes at `offsets[i]` of the file; its segments are the pairs
 * (address, length) `iovecs[2 * s], iovecs[2 * s + 1]` for s in [firstSegment[i], firstSegment[i +
 * 1]).
 */
export interface Operations {
  readonly count: number;
  readonly offsets: Float64Array;
  readonly lengths: Float64Array;
  /** `count + 1` entries. */
  readonly firstSegment: Uint32Array;
  readonly iovecs: Float64Array;
}

/**
 * Joins pieces that follow one another in the file into operations.
 *
 * @throws {RangeError} if a limit or an array is out of range
 */
export function coalesce(pieces: Pieces, limits: CoalesceLimits): Operations {
  const { maxBytes, maxIovecs = MAX_IOVECS } = limits;
  checkInteger("maxBytes", maxBytes, 1, MAX_TRANSFER_BYTES);
  checkInteger("maxIovecs", maxIovecs, 1, MAX_IOVECS);
  const { addresses, offsets, lengths, count } = pieces;
  checkInteger(
    "pieces.count",
    count,
    0,
    Math.min(addresses.length, offsets.length, lengths.length),
  );

  const most = segmentBound(lengths, count, maxBytes);
  const tables = {
    offsets: new Float64Array(most),
    lengths: new Float64Array(most),
    firstSegment: new Uint32Array(most + 1),
    iovecs: new Float64Array(2 * most),
  };
  const operations = joinPieces(pieces, maxBytes, maxIovecs, tables);
  const segments = tables.firstSegment[operations]!;
  return {
    count: operations,
    offsets: tables.offsets.subarray(0, operations),
    lengths: tables.lengths.subarray(0, operations),
    firstSegment: tables.firstSegment.subarray(0, operations + 1),
    iovecs: tables.iovecs.subarray(0, 2 * segments),
  };
}

/** Fills the tables in one pass. Returns the number of operations. */
function joinPieces(
  { addresses, offsets, lengths, count }: Pieces,
  maxBytes: number,
  maxIovecs: number,
  tables: Omit<Operations, "count">,
): number {
  const { offsets: opOffsets, lengths: opLengths, firstSegment, iovecs } = tables;
  let op = -1; // the operation being built
  let opBytes = 0;
  let segments = 0;
  let opFirst = 0; // its first segment
  let nextOffset = -1; // the offset after it in the file
  let nextAddress = -1; // the address after its last segment

  for (let i = 0; i < count; i++) {
    let address = addresses[i]!;
    let offset = offsets[i]!;
    let remaining = lengths[i]!;
    while (remaining > 0) {
      let joins = op >= 0 && offset === nextOffset && opBytes < maxBytes;
      const extends_ = joins && address === nextAddress;
      if (joins && !extends_ && segments - opFirst === maxIovecs) joins = false;
      if (!joins) {
        op++;
        opBytes = 0;
        opFirst = segments;
        opOffsets[op] = offset;
        firstSegment[op] = segments;
      }
      const taken = Math.min(remaining, maxBytes - opBytes);
      if (joins && extends_) {
        iovecs[2 * segments - 1]! += taken;
      } else {
        iovecs[2 * segments] = address;
        iovecs[2 * segments + 1] = taken;
        segments++;
      }
      opBytes += taken;
      opLengths[op] = opBytes;
      address += taken;
      offset += taken;
      remaining -= taken;
      nextAddress = address;
      nextOffset = offset;
    }
  }
  firstSegment[op + 1] = segments;
  return op + 1;
}

/**
 * Each step of the pass ends a piece or fills an operation, so there are at most as many segments
 * as pieces plus full operations.
 */
function segmentBound(lengths: Float64Array, count: number, maxBytes: number): number {
  let totalBytes = 0;
  for (let i = 0; i < count; i++) {
    const lengthBytes = lengths[i]!;
    if (!(Number.isSafeInteger(lengthBytes) && lengthBytes >= 0))
      checkInteger(`pieces.lengths[${i}]`, lengthBytes);
    totalBytes += lengthBytes;
  }
  return count + Math.floor(totalBytes / maxBytes);
}
