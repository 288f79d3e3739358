/** How stores, maps, tables and heaps appear in `console.log`: in one line, and never an error. */
import { quote } from "../../ffi/index.ts";

/**
 * `StoreMap "users" { 3 entries }`. Where `state` throws that it cannot be read: `{ closed }`,
 * `{ dropped }` or `{ not loaded }`.
 */
export function describeStructure(kind: string, name: string | null, state: () => string): string {
  const title = name === null ? kind : `${kind} ${quote(name)}`;
  return `${title} { ${stateOf(state)} }`;
}

function stateOf(state: () => string): string {
  try {
    return state();
  } catch (error) {
    const { code } = error as { code?: unknown };
    return STATES.get(code) ?? String(error);
  }
}

const STATES: ReadonlyMap<unknown, string> = new Map([
  ["ERR_DESTROYED", "closed"],
  ["ERR_DROPPED", "dropped"],
  ["ERR_NOT_LOADED", "not loaded"],
]);

/** `1 row`, `2 rows`; `entry` becomes `entries`. */
export function count(number: number, noun: string): string {
  if (number === 1) return `1 ${noun}`;
  return `${number} ${noun.endsWith("y") ? `${noun.slice(0, -1)}ies` : `${noun}s`}`;
}
