/** The codec of contents that are stored unchanged. */
import { copyMemory } from "../../ffi/index.ts";
import { type Codec, CodecId, REFUSED } from "./codec.ts";

export const RAW: Codec = {
  id: CodecId.Raw,
  name: "none",
  encode({ source, lengthBytes, destination, capacityBytes }) {
    if (lengthBytes > capacityBytes) return REFUSED;
    copyMemory(destination, source, lengthBytes);
    return lengthBytes;
  },
  decode({ source, storedBytes, destination, lengthBytes }) {
    if (storedBytes !== lengthBytes) return REFUSED;
    copyMemory(destination, source, lengthBytes);
    return lengthBytes;
  },
};
