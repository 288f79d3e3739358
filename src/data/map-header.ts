/** Makes, changes and drops maps. */
import { checkInteger } from "../../ffi/index.ts";
import { Buckets, MapWord } from "./buckets.ts";
import { Evictor } from "./evictor.ts";
import { type HeaderPlace, StructureKind } from "./header.ts";
import { KEY_TYPES, type KeyType } from "./keys.ts";
import type { MapOptions } from "./map-options.ts";
import type { StoreParts } from "./parts.ts";

/** The map of that name, if it has the limits that the options give. */
export function findMap(
  parts: StoreParts,
  name: string,
  { maxEntries, maxBytes }: MapOptions,
): HeaderPlace | undefined {
  const place = parts.names.find(name, StructureKind.Map);
  if (place === undefined || (maxEntries === undefined && maxBytes === undefined)) return place;
  const buckets = new Buckets(parts.arena, parts.pages, place);
  const hasLimits =
    (maxEntries === undefined || buckets.header(MapWord.MaxEntries) === maxEntries) &&
    (maxBytes === undefined || buckets.headerNumber(MapWord.MaxBytes) === maxBytes);
  return hasLimits ? place : undefined;
}

/**
 * The map of that name, with the limits that the options give; makes it if it does not exist.
 * @throws as Store.map
 */
export function createMap(
  parts: StoreParts,
  name: string,
  type: KeyType,
  { maxEntries, maxBytes }: MapOptions,
): HeaderPlace {
  if (maxEntries !== undefined) checkInteger("maxEntries", maxEntries, 0, 2 ** 31 - 1);
  if (maxBytes !== undefined) checkInteger("maxBytes", maxBytes, 0, 2 ** 50);
  return parts.arena.write(`map() to make or change ${JSON.stringify(name)}`, () => {
    let place = parts.names.find(name, StructureKind.Map);
    const isNew = place === undefined;
    place ??= parts.names.create(name, StructureKind.Map);
    const buckets = new Buckets(parts.arena, parts.pages, place);
    if (isNew) {
      buckets.create();
      buckets.setHeader(MapWord.KeyType, KEY_TYPES.indexOf(type));
    }
    if (maxEntries !== undefined) buckets.setHeader(MapWord.MaxEntries, maxEntries);
    if (maxBytes !== undefined) buckets.setHeaderNumber(MapWord.MaxBytes, maxBytes);
    return place;
  });
}

/**
 * Removes a map and all its entries, by operations of its own. The first removes the name, the
 * others free the memory, and none allocates. If a thread is terminated between them, memory stays
 * allocated that nothing uses.
 */
export function dropMap(parts: StoreParts, place: HeaderPlace): void {
  const { arena, names } = parts;
  const buckets = new Buckets(arena, parts.pages, place);
  arena.write("drop()", () => {
    arena.control.markStructure(place.structure);
    names.remove(place);
  });
  new Evictor(parts, buckets).free();
  arena.write("drop()", () => names.free(place));
  parts.tidy();
}
