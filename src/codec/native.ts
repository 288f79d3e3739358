/** Codecs of the system's libraries, which decode into place. */
import type { CodecLibrary } from "../../ffi/index.ts";
import type { Codec } from "./codec.ts";

export function nativeCodec(identity: Pick<Codec, "id" | "name">, library: CodecLibrary): Codec {
  return {
    ...identity,
    encode: ({ source, lengthBytes, destination, capacityBytes }) =>
      library.compress({ source, sourceBytes: lengthBytes, destination, capacityBytes }),
    decode: ({ source, storedBytes, destination, lengthBytes }) =>
      library.decompress({
        source,
        sourceBytes: storedBytes,
        destination,
        capacityBytes: lengthBytes,
      }),
  };
}
