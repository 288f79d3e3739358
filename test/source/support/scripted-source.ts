/**
 * A page source's module for tests: contents are a function of place, and options make answers
 * late, short, wrong, failed or absent.
 */
import type { ContentReader, ContentRequest } from "../../../src/source/index.ts";

export interface ScriptedOptions {
  /** Bytes of each content. */
  readonly sizes: readonly number[];
  readonly behaviour?:
    | "late"
    | "short"
    | "too many"
    | "no number"
    | "throws"
    | "rejects"
    | "never"
    | "blocks";
  /** Only reads from this offset on behave so. */
  readonly from?: number;
  /** Two words that count the reads that began and the readers that closed. */
  readonly counts?: SharedArrayBuffer;
}

export function byteAt(content: number, offset: number): number {
  return (Math.imul(offset + 1, 2654435761) >>> 13) + content * 7 + (offset >>> 12);
}

function fill({ content, offset, into }: ContentRequest, limit: number): number {
  let filled = 0;
  for (const bytes of into) {
    for (let i = 0; i < bytes.length && filled < limit; i++, filled++)
      bytes[i] = byteAt(content, offset + filled);
  }
  return filled;
}

export function openReader(options: ScriptedOptions): ContentReader {
  const { behaviour, sizes, from = 0 } = options;
  const counts = new Int32Array(options.counts ?? new SharedArrayBuffer(8));
  const answer = (request: ContentRequest): number => {
    const end = sizes[request.content] ?? 0;
    return fill(request, Math.max(0, Math.min(request.lengthBytes, end - request.offset)));
  };
  const misbehave = async (request: ContentRequest): Promise<number> => {
    if (behaviour === "throws") throw new Error("scripted failure");
    if (behaviour === "rejects") throw Object.assign(new Error("scripted"), { code: "ESCRIPT" });
    if (behaviour === "short") return fill(request, Math.floor(request.lengthBytes / 3));
    if (behaviour === "too many") return request.lengthBytes + 1;
    if (behaviour === "no number") return "many" as never;
    if (behaviour === "never") return await new Promise<number>(() => {});
    await Bun.sleep(5 + Math.random() * 10);
    return answer(request);
  };
  return {
    capabilities: { mayBlock: behaviour === "blocks", readsInFlight: 4 },
    read(request) {
      Atomics.add(counts, 0, 1);
      if (behaviour === "blocks" || behaviour === undefined || request.offset < from)
        return answer(request);
      if (behaviour === "throws") throw new Error("scripted failure");
      return misbehave(request);
    },
    close() {
      Atomics.add(counts, 1, 1);
    },
  };
}
