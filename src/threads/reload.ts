/**
 * `bun --hot` evaluates this library again after each change of the program, in the same JavaScript
 * thread. The earlier instance must end its threads then.
 */

/**
 * Each instance stores its end function here for the next one. The URL separates two copies of the
 * library.
 */
const KEY = Symbol.for(`pgalloc.end ${import.meta.url}`);

const ends: (() => void)[] = [];

const scope = globalThis as { [KEY]?: () => void };
scope[KEY]?.();
scope[KEY] = () => {
  for (const end of ends) end();
};

/** Calls `end` once another instance of the library has replaced this one in this thread. */
export function onReload(end: () => void): void {
  ends.push(end);
}
