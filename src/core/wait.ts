/** Waits that a signal can end. */
import { showValue } from "../../ffi/index.ts";
import { requireOptions } from "./option-names.ts";

/** The options of methods that wait. */
export interface WaitOptions {
  /** Ends the wait: it rejects with the signal's reason. The awaited work continues. */
  readonly signal?: AbortSignal | null | undefined;
}

/** The signal of `options`, checked. @throws {TypeError} @throws the signal's reason */
export function signalOf(options: WaitOptions | null | undefined): AbortSignal | undefined {
  if (options == null) return undefined;
  requireOptions(options);
  const { signal } = options;
  checkSignal(signal);
  return signal ?? undefined;
}

/** @throws {TypeError} @throws the signal's reason */
export function checkSignal(signal: unknown): void {
  if (signal == null) return;
  if (!(signal instanceof AbortSignal))
    throw new TypeError(`Expected signal to be an AbortSignal, got ${showValue(signal)}`);
  signal.throwIfAborted();
}

/** Settles as `work` does, or rejects with the signal's reason once it is aborted. */
export async function unlessAborted<T>(
  work: Promise<T>,
  signal: AbortSignal | undefined,
): Promise<T> {
  if (signal === undefined) return await work;
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
