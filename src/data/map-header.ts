/** Making, changing and dropping maps. */
import { checkInteger } from "../../ffi/index.ts";
import { Buckets, MapWord } from "./buckets.ts";
import { Evictor } from "./evictor.ts";
import { type HeaderPlace, StructureKind } from "./header.ts";
import { KEY_TYPES, type KeyType } from "./keys.ts";
import type { MapOptions } from "./map-options.ts";
import type { StoreParts } from "./parts.ts";

/**
 * The map of that name, made if need be, with the limits that the options give. @throws as
 * Store.map
 */
export function createMap(
  parts: StoreParts,
  name: string,
  type: KeyType,
  { maxEntries, maxBytes }: MapOptions,
): HeaderPlace {
  if (maxEntries !== undefined) checkInteger("maxEntries", maxEntries, 0, 2 ** 31 - 1);
  if (maxBytes !== undefined) checkInteger("maxBytes", maxBytes, 0, 2 ** 50);
  return parts.arena.write("map()", () => {
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

/** Removes a map and all its entries. Operations of its own. */
export function dropMap(parts: StoreParts, place: HeaderPlace): void {
  const buckets = new Buckets(parts.arena, parts.pages, place);
  new Evictor(parts, buckets).drop();
  parts.arena.write("drop()", () => parts.names.remove(place));
  parts.tidy();
}
