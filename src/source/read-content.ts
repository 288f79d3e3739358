/** Reads bytes of a content into new memory, for manifests and for reads without a load. */
import { addressOf } from "../../ffi/index.ts";
import type { SourceReader } from "./reader.ts";

/**
 * The bytes at `offset`, at most `lengthBytes`; fewer at the end of the content. Precondition: the
 * reader has nothing in flight.
 *
 * @throws the read's error
 */
export async function readContent(
  reader: SourceReader,
  { content, offset, lengthBytes }: { content: number; offset: number; lengthBytes: number },
): Promise<Uint8Array<SharedArrayBuffer>> {
  // Shared memory does not move.
  const bytes = new Uint8Array(new SharedArrayBuffer(lengthBytes));
  const base = addressOf(bytes);
  const { readBytesMax, mayBlock } = reader.capabilities;
  for (let at = 0; at < lengthBytes; ) {
    const length = Math.min(readBytesMax, lengthBytes - at);
    reader.read(0, content, offset + at, Float64Array.of(base + at, length), 1);
    const done = mayBlock ? reader.wait(1) : await reader.waitAsync(1);
    const error = done.errors[0];
    if (error) throw error;
    at += done.bytes[0]!;
    if (done.bytes[0]! < length) return bytes.subarray(0, at);
  }
  return bytes;
}
