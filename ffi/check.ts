/** Argument checks that stand before every native call, since bun:ffi converts any number without a word. */

/** Throws unless `value` is an integer in [min, max]; RangeError names the argument and the value. */
export const checkInteger = (
  name: string,
  value: number,
  min = 0,
  max = Number.MAX_SAFE_INTEGER,
): void => {
  if (typeof value !== "number") {
    throw new TypeError(
      `Expected ${name} to be a number, got ${typeof value === "bigint" ? `${value}n` : String(value)}`,
    );
  }
  if (!Number.isSafeInteger(value) || value < min || value > max) {
    throw new RangeError(`Expected ${name} to be an integer in [${min}, ${max}], got ${value}`);
  }
};
