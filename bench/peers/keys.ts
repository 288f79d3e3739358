/** Keys of 16 bytes, or numbers, in no order: entry n has the key of `numberOf(n)`. */
import type { Key, KeyKind } from "./maps.ts";

const KEY_BYTES = 16;

/** Different entries have different numbers. */
export const numberOf = (entry: number): number => (entry * 2_654_435_761) % 2 ** 32;

export function randomNumbers(count: number, entries: number): Float64Array {
  return Float64Array.from({ length: count }, () => numberOf(Math.floor(Math.random() * entries)));
}

/**
 * The keys of these numbers, in the same order. Strings are new and flat, as those of a request
 * are: the engine has neither hashed them nor to join them from parts.
 */
export function keysOf(numbers: Float64Array, kind: KeyKind): Key[] {
  if (kind === "u32") return Array.from(numbers);
  const text = Buffer.alloc(KEY_BYTES * numbers.length);
  for (const [i, number] of numbers.entries())
    text.write(`user:${number.toString(36).padStart(11, "0")}`, KEY_BYTES * i, "latin1");
  return Array.from(numbers, (_, i) => {
    const [start, end] = [KEY_BYTES * i, KEY_BYTES * (i + 1)];
    if (kind === "string") return text.toString("latin1", start, end);
    return Buffer.from(text.subarray(start, end));
  });
}
