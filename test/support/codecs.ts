/** The codecs of this machine. */
import { openLz4 } from "../../ffi/index.ts";

/** False without liblz4, as on Bun for musl on a machine with glibc. */
export const hasLz4 = !(openLz4() instanceof Error);
