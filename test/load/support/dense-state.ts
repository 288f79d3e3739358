import { LoadState, PAGES_PER_UNIT } from "../../../src/load/load-state.ts";

/** The state of a load of `units` units, all of one extent, of which nothing has been read. */
export function denseState(units: number): LoadState {
  return LoadState.create({
    sizePages: units * PAGES_PER_UNIT,
    extentStart: Uint32Array.of(0),
    extentLength: Uint32Array.of(units * PAGES_PER_UNIT),
    extentOffset: 0,
    checksums: null,
  });
}
