/**
 * The sizes that a zstd frame declares, read without decoding it: the size of its contents from its
 * header, and its own size from the headers of its blocks. Source: RFC 8878, sections 3.1.1.1 and
 * 3.1.1.2.
 */

export interface ZstdFrameSizes {
  /** Bytes of the decoded frame. */
  readonly contentBytes: number;
  /** Bytes of the frame. */
  readonly frameBytes: number;
}

const MAGIC = 0xfd2fb528;
const DICTIONARY_ID_BYTES = [0, 1, 2, 4] as const;
const RLE_BLOCK = 1;
const RESERVED_BLOCK = 3;

/** Undefined unless `frame` begins with a complete frame that declares the size of its contents. */
export function zstdFrameSizes(frame: Uint8Array): ZstdFrameSizes | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (frame.byteLength < 6 || view.getUint32(0, true) !== MAGIC) return undefined;
  const descriptor = view.getUint8(4);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  let at = 5 + (isSingleSegment ? 0 : 1) + DICTIONARY_ID_BYTES[(descriptor & 3) as 0 | 1 | 2 | 3];
  const sizeFlag = descriptor >> 6;
  const sizeBytes = sizeFlag === 0 ? (isSingleSegment ? 1 : 0) : 1 << sizeFlag;
  if (sizeBytes === 0 || at + sizeBytes > frame.byteLength) return undefined;
  const contentBytes = readContentSize(view, at, sizeBytes);
  at += sizeBytes;
  for (let isLast = false; !isLast; ) {
    if (at + 3 > frame.byteLength) return undefined;
    const header = view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
    isLast = (header & 1) !== 0;
    const type = (header >> 1) & 3;
    if (type === RESERVED_BLOCK) return undefined;
    at += 3 + (type === RLE_BLOCK ? 1 : header >> 3);
  }
  const hasChecksum = (descriptor & 4) !== 0;
  const frameBytes = at + (hasChecksum ? 4 : 0);
  return frameBytes > frame.byteLength ? undefined : { contentBytes, frameBytes };
}

function readContentSize(view: DataView, at: number, sizeBytes: number): number {
  if (sizeBytes === 1) return view.getUint8(at);
  // RFC 8878: a size of two bytes has 256 subtracted.
  if (sizeBytes === 2) return view.getUint16(at, true) + 256;
  if (sizeBytes === 4) return view.getUint32(at, true);
  return Number(view.getBigUint64(at, true));
}
