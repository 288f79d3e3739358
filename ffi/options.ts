/** Checks objects of options as a whole: what they are, and whether a name is spelled wrong. */
import { quote, showValue } from "./check.ts";

const DISTANCE_MAX = 2;
/** Shorter names are too similar to one another. */
const ABBREVIATION_MIN = 3;
const TYPO_MIN = 5;

/**
 * @throws {TypeError} unless it is an object, and no collection
 * @throws {TypeError} if a property's name is none of `names`, but similar to one
 */
export function checkOptionsObject(
  options: unknown,
  names: ReadonlySet<string>,
): asserts options is object {
  if (typeof options !== "object" || options === null || isCollection(options))
    throw new TypeError(`Expected options to be an object, got ${showValue(options)}`);
  // Makes no list of them: this is called for each allocation.
  for (const name in options) {
    if (names.has(name)) continue;
    const meant = findSimilar(name, names);
    if (meant !== undefined)
      throw new TypeError(`Unknown option ${quote(name)}: did you mean ${quote(meant)}?`);
  }
}

/** Bytes, for example, that were meant as user data: they have no options, only elements. */
function isCollection(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === null) return false;
  return (
    Array.isArray(value) ||
    ArrayBuffer.isView(value) ||
    value instanceof Map ||
    value instanceof Set ||
    value instanceof Promise
  );
}

/** The name that is most like `name`: a variant of spelling, an abbreviation, or a typo. */
function findSimilar(name: string, names: ReadonlySet<string>): string | undefined {
  const plain = plainOf(name);
  let best: string | undefined;
  let least = DISTANCE_MAX + 1;
  for (const known of names) {
    const other = plainOf(known);
    const distance = isAbbreviation(plain, other) ? 1 : distanceOf(plain, other);
    const isTypo = distance === 0 || distance === 1 || plain.length >= TYPO_MIN;
    if (isTypo && distance < least) [best, least] = [known, distance];
  }
  return best;
}

function plainOf(name: string): string {
  return name.replace(/[-_]/g, "").toLowerCase();
}

/** At least half of a name. */
function isAbbreviation(short: string, long: string): boolean {
  if (short.length < ABBREVIATION_MIN || 2 * short.length < long.length) return false;
  return long.startsWith(short) || long.endsWith(short);
}

/** Letters to add, remove, replace or swap with their neighbour; at most one more than counts. */
function distanceOf(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > DISTANCE_MAX) return DISTANCE_MAX + 1;
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let k = 1; k <= b.length; k++) {
      const cost = a[i - 1] === b[k - 1] ? 0 : 1;
      let least = Math.min(last[k]! + 1, row[k - 1]! + 1, last[k - 1]! + cost);
      if (i > 1 && k > 1 && a[i - 1] === b[k - 2] && a[i - 2] === b[k - 1])
        least = Math.min(least, before[k - 2]! + 1);
      row.push(least);
    }
    [before, last] = [last, row];
  }
  return last[b.length]!;
}
