/**
 * What Node and Deno get in place of the library, which needs Bun and Linux: the same names, so that
 * a program can be imported and its tests can replace them. A call throws.
 */

const runtime =
  typeof Deno === "object"
    ? `Deno ${Deno.version.deno}`
    : typeof process === "object"
      ? `Node.js ${process.version}`
      : "another runtime";

/** @param {string} name */
function refuse(name) {
  const error = new Error(
    `${name} of pgalloc needs Bun 1.4 or later on Linux, and this is ${runtime}; ` +
      "run the program with bun (https://bun.com)",
  );
  error.name = "UnsupportedError";
  error.code = "ERR_UNSUPPORTED";
  throw error;
}

/**
 * A class or function that throws when it is called, and so do its methods.
 * @param {string} name
 * @returns {any}
 */
export function needsBun(name) {
  const target = class {};
  Object.defineProperty(target, "name", { value: name });
  return new Proxy(target, {
    apply: () => refuse(name),
    construct: () => refuse(name),
    get: (_, key) =>
      typeof key === "symbol" || key in target ? target[key] : () => refuse(`${name}.${key}()`),
  });
}

/**
 * An error class, for `instanceof`.
 * @param {string} name
 * @returns {any}
 */
export function errorClass(name) {
  return Object.defineProperty(class extends Error {}, "name", { value: name });
}
