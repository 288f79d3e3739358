import { CodecId } from "../../../src/codec/codec.ts";
import type { PageMap } from "../../../src/checkpoint/page-map.ts";
import { createGroup } from "../../../src/load/group.ts";
import { LoadState } from "../../../src/load/load-state.ts";
import { PAGES_PER_UNIT } from "../../../src/load/load-tables.ts";
import { PAGE_SIZE } from "../../../src/index.ts";
import type { PageSource } from "../../../src/source/description.ts";
import { fileSource } from "../../../src/source/file-source.ts";

/** Extents whose contents follow one another in content 1. */
export function contiguousMap(
  extents: readonly (readonly [start: number, length: number])[],
): PageMap {
  let pages = 0;
  const framePage = extents.map(([, length]) => {
    pages += length;
    return pages - length;
  });
  return {
    extents: {
      start: Uint32Array.from(extents, ([start]) => start),
      length: Uint32Array.from(extents, ([, length]) => length),
      frame: new Uint32Array(extents.length),
      framePage: Uint32Array.from(framePage),
    },
    frames: {
      content: Uint32Array.of(1),
      codec: Uint32Array.of(CodecId.Raw),
      offset: Float64Array.of(0),
      storedBytes: Float64Array.of(pages * PAGE_SIZE),
      pages: Uint32Array.of(pages),
    },
  };
}

/** The state of a load on its own, without checksums. */
export function stateOf(
  map: PageMap,
  source: PageSource = fileSource([]),
  first: Int32Array<SharedArrayBuffer> | null = null,
): LoadState {
  return LoadState.create({
    map,
    source,
    first,
    overlay: null,
    group: createGroup(1),
    index: 0,
  });
}

/** The state of a load of `units` units, all of one extent, of which nothing has been read. */
export function denseState(
  units: number,
  source?: PageSource,
  first?: Int32Array<SharedArrayBuffer>,
): LoadState {
  return stateOf(contiguousMap([[0, units * PAGES_PER_UNIT]]), source, first);
}
