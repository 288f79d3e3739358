/** Values that programs pass. */

const lengthGetter = Object.getOwnPropertyDescriptor(
  Object.getPrototypeOf(Uint8Array.prototype),
  "length",
)!.get as () => number;

/**
 * A typed array's own length, whatever a subclass says of it. @throws {TypeError} for another type
 */
export function lengthOfBytes(name: string, value: unknown): number {
  if (!(value instanceof Uint8Array))
    throw new TypeError(`Expected ${name} to be a Uint8Array, got ${typeof value}`);
  return lengthGetter.call(value);
}
