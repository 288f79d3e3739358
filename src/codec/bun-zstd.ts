/**
 * zstd by Bun's own functions, for machines without libzstd. They allocate their result, so a
 * decode copies once more.
 *
 * The sizes that the frame declares are checked first, because a frame may declare 2 GiB of
 * contents, and Bun would allocate them.
 */
import { bufferAt, detach } from "../../ffi/index.ts";
import { type Codec, CodecId, REFUSED } from "./codec.ts";
import { zstdFrameSizes } from "./zstd-frame.ts";

export function bunZstd(level: number): Codec {
  return {
    id: CodecId.Zstd,
    name: "zstd",
    encode({ source, lengthBytes, destination, capacityBytes }) {
      const frame = withBytes(source, lengthBytes, (bytes) =>
        Bun.zstdCompressSync(bytes, { level }),
      );
      if (frame.byteLength > capacityBytes) return REFUSED;
      place(frame, destination);
      return frame.byteLength;
    },
    decode({ source, storedBytes, destination, lengthBytes }) {
      if (storedBytes === 0) return REFUSED;
      const contents = withBytes(source, storedBytes, (bytes) => decodeFrame(bytes, lengthBytes));
      if (contents?.byteLength !== lengthBytes) return REFUSED;
      place(contents, destination);
      return lengthBytes;
    },
  };
}

/** Undefined if the frame is damaged or its contents do not have `lengthBytes`. */
function decodeFrame(frame: Uint8Array<ArrayBuffer>, lengthBytes: number): Uint8Array | undefined {
  const sizes = zstdFrameSizes(frame);
  if (sizes?.contentBytes !== lengthBytes || sizes.frameBytes !== frame.byteLength)
    return undefined;
  try {
    return Bun.zstdDecompressSync(frame);
  } catch {
    // Bun reports a damaged frame by an error without a code.
    return undefined;
  }
}

/** Native memory as bytes while `use` runs. */
function withBytes<Result>(
  address: number,
  lengthBytes: number,
  use: (bytes: Uint8Array<ArrayBuffer>) => Result,
): Result {
  if (lengthBytes === 0) return use(new Uint8Array());
  const buffer = bufferAt(address, lengthBytes);
  try {
    return use(new Uint8Array(buffer));
  } finally {
    detach(buffer);
  }
}

function place(bytes: Uint8Array, address: number): void {
  withBytes(address, bytes.byteLength, (memory) => memory.set(bytes));
}
