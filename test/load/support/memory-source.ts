/** A page source over shared memory, which can be slow, fail, or never answer. */
import type { ContentReader } from "../../../src/source/index.ts";

export interface MemorySourceOptions {
  /** Contents in SharedArrayBuffers. */
  readonly contents: readonly Uint8Array[];
  readonly delayMs?: number;
  readonly never?: boolean;
  readonly usefulReads?: number;
  /** A word: reads of page files fail while it is 1. */
  readonly failing?: SharedArrayBuffer;
  /** Words: counts reads of each content. */
  readonly reads?: SharedArrayBuffer;
}

export function openReader(options: MemorySourceOptions): ContentReader {
  const { contents, delayMs = 0, never = false } = options;
  const failing = new Int32Array(options.failing ?? new SharedArrayBuffer(4));
  const reads = new Int32Array(options.reads ?? new SharedArrayBuffer(4 * contents.length));
  return {
    ...(options.usefulReads !== undefined && { usefulReads: options.usefulReads }),
    async read({ content, offset, into }) {
      Atomics.add(reads, content, 1);
      if (never) return await new Promise<number>(() => {});
      if (delayMs > 0) await Bun.sleep(delayMs);
      if (content > 0 && Atomics.load(failing, 0) === 1)
        throw Object.assign(new Error("scripted"), { code: "ESCRIPT" });
      let filled = 0;
      for (const bytes of into) {
        const at = offset + filled;
        const piece = contents[content]!.subarray(at, at + bytes.length);
        bytes.set(piece);
        filled += piece.length;
      }
      return filled;
    },
  };
}
