/**
 * Admission: how many saves of a JavaScript thread run at once. Each has up to four writing threads
 * and some descriptors, so of hundreds of saves that begin together the others follow in order.
 *
 * A save that runs waits for no save that does not. Saves to remote places take long, so they have
 * places of their own.
 */
import { isRemote } from "../remote/place.ts";

const LOCAL_MAX = 4;
const REMOTE_MAX = 16;

class Admission {
  private free: number;
  private waiting: (() => void)[] = [];

  constructor(places: number) {
    this.free = places;
  }

  async run<T>(work: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    if (this.free > 0) this.free--;
    else await this.wait(signal);
    try {
      return await work();
    } finally {
      const next = this.waiting.shift();
      if (next === undefined) this.free++;
      else next();
    }
  }

  /** @throws the signal's reason */
  private async wait(signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onAbort = () => {
      this.waiting = this.waiting.filter((other) => other !== resolve);
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    this.waiting.push(resolve);
    try {
      await promise;
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }
}

const local = new Admission(LOCAL_MAX);
const remote = new Admission(REMOTE_MAX);

/** Runs a save to `place` once it is admitted. @throws the signal's reason */
export async function whenAdmitted<T>(
  place: string,
  signal: AbortSignal | undefined,
  save: () => Promise<T>,
): Promise<T> {
  return await (isRemote(place) ? remote : local).run(save, signal);
}
