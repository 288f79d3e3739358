/** How a file and a handle are shown in messages, in `console.log` and in template strings. */
import { Word } from "../control/control.ts";
import { quote } from "../../ffi/index.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import type { FileCore } from "./core.ts";
import type { MemoryFileHandle } from "./options.ts";

/** Node's and Bun's hook for `console.log`. */
export const INSPECT = Symbol.for("nodejs.util.inspect.custom");

const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB"] as const;

function showBytes(bytes: number): string {
  let unit = 0;
  let size = bytes;
  for (; size >= 1024 && unit < UNITS.length - 1; unit++) size /= 1024;
  return `${Number.isInteger(size) ? size : size.toFixed(1)} ${UNITS[unit]}`;
}

/** `MemoryFile "name" { 8 KiB of 256 GiB in use, 1 GiB mapped }`. Never throws. */
export function describeFile(core: FileCore): string {
  const name = `MemoryFile ${quote(core.name)}`;
  if (core.words[Word.Destroyed] !== 0) return `${name} { destroyed }`;
  const { words } = core;
  const bytesOf = (word: number) => words[word]! * PAGE_SIZE;
  const parts = [
    `${showBytes(bytesOf(Word.UsedPages))} of ${showBytes(core.limitBytes)} in use`,
    `${showBytes(bytesOf(Word.SizePages))} mapped`,
  ];
  const pageFilePages = core.mapping.overlay?.pages ?? 0;
  if (pageFilePages > 0) parts.push(`${showBytes(pageFilePages * PAGE_SIZE)} of page files`);
  if (words[Word.WastePages]! > 0)
    parts.push(`${showBytes(bytesOf(Word.WastePages))} to be released`);
  if (core.mayMissPages) parts.push("loading");
  if (words[Word.Saving] !== 0) parts.push("saving");
  if (words[Word.Shared] !== 0) parts.push("shared");
  return `${name} { ${parts.join(", ")} }`;
}

/** Gives a handle a short form for `console.log`. structuredClone does not copy it. */
export function describeHandle(handle: MemoryFileHandle): MemoryFileHandle {
  return Object.defineProperty(handle, INSPECT, {
    value: () => `MemoryFileHandle of ${quote(handle.name)}`,
  });
}

/**
 * A property value that cannot be copied. Without it, structuredClone and postMessage would turn a
 * MemoryFile into an object without methods.
 */
export const REFUSES_CLONES: object = Object.freeze(
  Object.defineProperty({}, "clone", {
    enumerable: true,
    get(): never {
      throw new TypeError(
        "Cannot clone a MemoryFile or a Store: post the result of its share() instead, and " +
          "attach() that there",
      );
    },
  }),
);
