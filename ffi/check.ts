/**
 * Checks of arguments before native calls, which convert any number silently, and the form of
 * values in messages.
 */

/** Throws unless `value` is an integer in [min, max]. The message names argument and value. */
export const checkInteger = (
  name: string,
  value: number,
  min = 0,
  max = Number.MAX_SAFE_INTEGER,
): void => {
  if (typeof value !== "number")
    throw new TypeError(`Expected ${name} to be a number, got ${showValue(value)}`);
  if (!Number.isSafeInteger(value) || value < min || value > max)
    throw new RangeError(`Expected ${name} to be an integer in [${min}, ${max}], got ${value}`);
};

/** @throws {TypeError} naming the argument, unless `value` is a boolean or undefined */
export function checkBoolean(name: string, value: unknown): void {
  if (value !== undefined && typeof value !== "boolean")
    throw new TypeError(`Expected ${name} to be a boolean, got ${showValue(value)}`);
}

/** @throws {TypeError} naming the argument, unless `value` is a function */
export function checkFunction(name: string, value: unknown): void {
  if (typeof value !== "function")
    throw new TypeError(`Expected ${name} to be a function, got ${showValue(value)}`);
}

const AsyncFunction = (async () => {}).constructor as new () => object;

/** @throws {TypeError} naming the argument, unless `value` is a function and not an async one */
export function checkSynchronous(name: string, value: unknown): void {
  checkFunction(name, value);
  if (value instanceof AsyncFunction)
    throw new TypeError(`Expected ${name} to be a synchronous function, got an async one`);
}

const MAX_SHOWN_CHARACTERS = 120;

/**
 * A value for an error message, with its type if that is not plain: `7`, `"7" (a string)`, `7n (a
 * bigint)`, `null`, `a Map`, `an array of 3`, `{ start: 0, end: "1" }`.
 */
export function showValue(value: unknown): string {
  switch (typeof value) {
    case "string":
      return `${quote(value)} (a string)`;
    case "bigint":
      return `${value}n (a bigint)`;
    case "symbol":
      return "a symbol";
    case "function":
      return value.name === "" ? "a function" : `the function ${value.name}`;
    case "object":
      return value === null ? "null" : showObject(value);
    default:
      return String(value);
  }
}

/** A string in quotes, cut if it is long. */
export function quote(text: string): string {
  return text.length <= MAX_SHOWN_CHARACTERS
    ? JSON.stringify(text)
    : `${JSON.stringify(text.slice(0, MAX_SHOWN_CHARACTERS))}… (${text.length} characters)`;
}

function showObject(value: object): string {
  if (Array.isArray(value)) return `an array of ${value.length}`;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== null && prototype !== Object.prototype) {
    const { constructor: maker } = prototype as { constructor?: unknown };
    const name = typeof maker === "function" ? maker.name : "";
    return name === "" ? "an object" : `${/^[AEIO]/.test(name) ? "an" : "a"} ${name}`;
  }
  // Descriptors instead of properties, because a getter is the program's code.
  const fields = Object.entries(Object.getOwnPropertyDescriptors(value)).map(
    ([key, { value: field }]) => `${key}: ${showField(field)}`,
  );
  const text = `{ ${fields.join(", ")} }`;
  return fields.length === 0 ? "{}" : text.length <= MAX_SHOWN_CHARACTERS ? text : "an object";
}

function showField(value: unknown): string {
  if (typeof value === "string") return quote(value);
  return typeof value === "object" && value !== null ? "…" : String(value);
}
