/**
 * A program that runs with `bun --hot` evaluates this library anew after each change, in the same
 * JavaScript thread. The instance before it must not keep its threads.
 */

/**
 * Where an instance leaves its end for the next one. The URL tells two copies of the library apart.
 */
const KEY = Symbol.for(`pgalloc.end ${import.meta.url}`);

const ends: (() => void)[] = [];

const scope = globalThis as { [KEY]?: () => void };
scope[KEY]?.();
scope[KEY] = () => {
  for (const end of ends) end();
};

/** `end` is called once another instance of the library has taken over in this thread. */
export function onReload(end: () => void): void {
  ends.push(end);
}
