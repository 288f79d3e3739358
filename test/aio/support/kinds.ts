/** Every kind of queue, and both ways to wait for it. */
import { readdirSync } from "node:fs";
import { errnoNumber } from "../../../ffi/index.ts";
import { type QueueKind, uringUnavailableReason } from "../../../src/aio/index.ts";
import type { Queue } from "../../../src/aio/index.ts";

export const PIECE = 4096;
export const FILE_BYTES = 256 * PIECE;
export const errorResult = (code: string) => -errnoNumber(code);

export interface Kind {
  readonly kind: Exclude<QueueKind, "auto">;
  /** The reason why it cannot run on this machine. */
  readonly unavailable: string | null;
  /** True if operations continue while the owner does something else. */
}

export const kinds: Kind[] = [
  { kind: "inline", unavailable: null },
  { kind: "workers", unavailable: null },
  { kind: "uring", unavailable: uringUnavailableReason() },
];

/** Both ways of waiting as one function, because both follow the same contract. */
export const waits: Record<
  string,
  (queue: Queue, minCompletions: number) => Promise<[id: number, result: number][]>
> = {
  wait: async (queue, minCompletions) => toList(queue.wait(minCompletions)),
  waitAsync: async (queue, minCompletions) => toList(await queue.waitAsync(minCompletions)),
};

export function toList({ count, ids, results }: ReturnType<Queue["wait"]>): [number, number][] {
  return Array.from({ length: count }, (_, i) => [ids[i]!, results[i]!]);
}

/** The descriptors of this process that are open now. */
export const openFds = () => readdirSync("/proc/self/fd").length;
