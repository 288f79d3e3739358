/**
 * A page source over an event loop, whose first read makes pages wanted. It counts the reads that
 * begin until they are not wanted any more.
 */
import { GroupWord, LoadGroup } from "../../../src/load/group.ts";
import type { ContentReader } from "../../../src/source/index.ts";

export interface DemandingSourceOptions {
  /** Of the load's group. */
  readonly group: SharedArrayBuffer;
  /** A word: the reads that began. */
  readonly began: SharedArrayBuffer;
}

export const READS_IN_FLIGHT = 16;
const TURNS = 100;

export function openReader(options: DemandingSourceOptions): ContentReader {
  const group = new LoadGroup(options.group);
  const began = new Int32Array(options.began);
  const unwanted = Promise.withResolvers<void>();
  let reads = 0;
  const want = async (): Promise<void> => {
    Atomics.store(group.words, GroupWord.DemandInFlight, 1);
    group.noteDemand();
    for (let turn = 0; turn < TURNS; turn++) await new Promise((resolve) => setImmediate(resolve));
    Atomics.store(began, 0, reads);
    Atomics.store(group.words, GroupWord.DemandInFlight, 0);
    group.wake();
    unwanted.resolve();
  };
  return {
    capabilities: { readsInFlight: READS_IN_FLIGHT },
    async read({ lengthBytes }) {
      if (reads++ === 0) void want();
      await unwanted.promise;
      return lengthBytes;
    },
  };
}
