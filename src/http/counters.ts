/**
 * Counters of requests, shared by the threads of a load. They are only for display: two threads
 * that count at once may lose one.
 */

export const Counter = {
  Requests: 0,
  Retries: 1,
  Hedges: 2,
  /** Bytes of contents received. */
  ReceivedBytes: 3,
  SentBytes: 4,
} as const;
const COUNTERS = 5;

export type CounterHandle = SharedArrayBuffer;

export function createCounters(): CounterHandle {
  return new SharedArrayBuffer(COUNTERS * 8);
}

export function openCounters(handle: CounterHandle = createCounters()): Float64Array {
  return new Float64Array(handle);
}
