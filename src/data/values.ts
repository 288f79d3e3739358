/** Checks values that programs pass. */
import { showValue } from "../../ffi/index.ts";

const lengthGetter = Object.getOwnPropertyDescriptor(
  Object.getPrototypeOf(Uint8Array.prototype),
  "length",
)!.get as () => number;

/** A typed array's own length, whatever a subclass reports. @throws {TypeError} for another type */
export function lengthOfBytes(name: string, value: unknown): number {
  if (!(value instanceof Uint8Array))
    throw new TypeError(`Expected ${name} to be a Uint8Array, got ${showValue(value)}`);
  return lengthGetter.call(value);
}
