/**
 * Composes the metadata of an image in the form that gVisor's LoadFrom accepts: four interval sets
 * that also contain the absent pages, and accounting that is cut where contents begin and end.
 * Neighbours of equal value are joined as gVisor's own sets join them: in the form without a pages
 * file, its loader expects one header for each joined range.
 */
import {
  CHUNK_PAGES,
  forEachChunkGroup,
  GVISOR_KIND_MAX,
  HUGE_PAGES,
  type ImageExtents,
  type ImageRuns,
  type MemoryFileImage,
  PAGE_BYTES,
  RunState,
} from "./image.ts";
import type {
  GvisorMetadata,
  MemAcctColumns,
  RangeColumns,
  SubreleasedColumns,
  UnfreeColumns,
} from "./metadata.ts";
import { U64_MAX } from "./wire.ts";

/**
 * The input of the metadata. It does not say where contents are: they follow in the order of
 * `extents`.
 */
export interface ComposedImage {
  readonly chunkHuge: Uint8Array;
  readonly runs: ImageRuns;
  readonly extents: Pick<ImageExtents, "start" | "length">;
}

export interface ComposeOptions {
  /**
   * Replaces kinds that gVisor does not have (a program's own, 6 to 255). Without it, such a kind
   * is an error.
   */
  readonly foreignKind?: number | undefined;
}

/**
 * The caller must then write contents in the order of `extents`: to the pages file without a gap,
 * or in the stream with a header for each range that `validateMetadata` returns as `committed`.
 *
 * @throws {RangeError} if runs or extents are out of order or leave their chunks, if contents are
 * outside of used pages, or if a run's kind is foreign to gVisor and `foreignKind` is not given
 */
export function imageToMetadata(
  image: MemoryFileImage | ComposedImage,
  options: ComposeOptions = {},
): GvisorMetadata {
  const { chunkHuge, runs } = image;
  checkRuns(image);
  const sets = {
    unfree: [new UnfreeBuilder(), new UnfreeBuilder()],
    unwaste: [new RangeBuilder(), new RangeBuilder()],
  } as const;
  let run = 0;
  forEachChunkGroup(chunkHuge, ({ start, end, huge }) => {
    const own = huge ? 1 : 0;
    const other = huge ? 0 : 1;
    sets.unfree[other].push(start, end, 0);
    sets.unwaste[other].push(start, end);
    let unwasteStart = start;
    for (; run < runs.start.length && runs.start[run]! < end; run++) {
      const first = runs.start[run]!;
      const last = first + runs.length[run]!;
      if (last > end)
        throw new RangeError(
          `Expected run [${first}, ${last}) to end with its chunks' page size at ${end}`,
        );
      if (!huge && runs.state[run] === RunState.subReleased) {
        throw new RangeError(
          `Expected sub-released pages in huge chunks only, got [${first}, ${last})`,
        );
      }
      sets.unfree[own].push(first, last, runs.state[run] === RunState.used ? runs.refs[run]! : 0);
      if (runs.state[run] !== RunState.waste) continue;
      sets.unwaste[own].push(unwasteStart, first);
      unwasteStart = last;
    }
    sets.unwaste[own].push(unwasteStart, end);
  });
  const sizePages = chunkHuge.length * CHUNK_PAGES;
  for (const unfree of sets.unfree) unfree.push(sizePages, U64_MAX, 0);
  for (const unwaste of sets.unwaste) unwaste.push(sizePages, U64_MAX);
  return {
    chunks: { huge: chunkHuge.slice() },
    memAcct: composeMemAcct(image, options.foreignKind),
    unfreeSmall: sets.unfree[0].finish(),
    unfreeHuge: sets.unfree[1].finish(),
    unwasteSmall: sets.unwaste[0].finish(),
    unwasteHuge: sets.unwaste[1].finish(),
    subreleased: composeSubreleased(runs),
  };
}

function checkRuns({ chunkHuge, runs }: ComposedImage): void {
  const sizePages = chunkHuge.length * CHUNK_PAGES;
  let previousEnd = 0;
  for (let i = 0; i < runs.start.length; i++) {
    const start = runs.start[i]!;
    const end = start + runs.length[i]!;
    if (start < previousEnd || start === end || end > sizePages) {
      throw new RangeError(
        `Expected runs to be ordered within ${sizePages} pages, got [${start}, ${end}) after ` +
          `${previousEnd}`,
      );
    }
    if ((runs.state[i] === RunState.used) !== runs.refs[i]! > 0) {
      throw new RangeError(
        `Expected references on used runs only, got ${runs.refs[i]} on [${start}, ${end}) in ` +
          `state ${runs.state[i]}`,
      );
    }
    previousEnd = end;
  }
}

/** Cuts the accounted runs where contents begin and end. */
function composeMemAcct(
  { runs, extents }: ComposedImage,
  foreignKind: number | undefined,
): MemAcctColumns {
  const builder = new MemAcctBuilder();
  let extent = 0;
  let placedPages = 0;
  for (let run = 0; run < runs.start.length; run++) {
    if (runs.state[run] === RunState.subReleased) continue;
    const end = runs.start[run]! + runs.length[run]!;
    const kind = gvisorKind(runs.kind[run]!, foreignKind);
    for (let at = runs.start[run]!; at < end; ) {
      while (
        extent < extents.start.length &&
        extents.start[extent]! + extents.length[extent]! <= at
      )
        extent++;
      const extentStart = extents.start[extent] ?? U64_MAX;
      const committed = extentStart <= at;
      const next = Math.min(end, committed ? extentStart + extents.length[extent]! : extentStart);
      if (committed) placedPages += next - at;
      builder.push(at, next, kind, runs.group[run]!, committed ? 1 : 0);
      at = next;
    }
  }
  let pages = 0;
  for (const length of extents.length) pages += length;
  if (pages !== placedPages) {
    throw new RangeError(
      `Expected ordered extents within runs, got ${pages} pages of which ${placedPages} are`,
    );
  }
  return builder.finish();
}

/**
 * @throws {RangeError} if a used page's kind is foreign to gVisor, and `foreignKind` is not given
 */
export function checkKinds(runs: ImageRuns, foreignKind: number | undefined): void {
  for (const kind of runs.kind) gvisorKind(kind, foreignKind);
}

function gvisorKind(kind: number, foreignKind: number | undefined): number {
  if (kind <= GVISOR_KIND_MAX) return kind;
  if (foreignKind !== undefined && foreignKind <= GVISOR_KIND_MAX) return foreignKind;
  throw new RangeError(
    `Expected memory kinds in [0, ${GVISOR_KIND_MAX}], which gVisor has, got ${kind}; give ` +
      "foreignKind to replace it",
  );
}

function composeSubreleased(runs: ImageRuns): SubreleasedColumns {
  const hugeStart: number[] = [];
  const count: number[] = [];
  for (let run = 0; run < runs.start.length; run++) {
    if (runs.state[run] !== RunState.subReleased) continue;
    const end = runs.start[run]! + runs.length[run]!;
    for (let at = runs.start[run]!; at < end; ) {
      const hugePage = Math.floor(at / HUGE_PAGES);
      const next = Math.min(end, (hugePage + 1) * HUGE_PAGES);
      const key = hugePage * HUGE_PAGES * PAGE_BYTES;
      if (hugeStart[hugeStart.length - 1] === key) count[count.length - 1]! += next - at;
      else {
        hugeStart.push(key);
        count.push(next - at);
      }
      at = next;
    }
  }
  const whole = count.indexOf(HUGE_PAGES);
  if (whole >= 0)
    throw new RangeError(
      `Expected the huge page at ${hugeStart[whole]} to be free, got all of it sub-released`,
    );
  return { hugeStart: new Float64Array(hugeStart), count: new Float64Array(count) };
}

/** Converts pages to bytes, joins neighbours and ignores empty ranges. */
class RangeBuilder {
  private readonly start: number[] = [];
  private readonly end: number[] = [];

  push(start: number, end: number): void {
    if (start === end) return;
    if (this.end[this.end.length - 1] === start * PAGE_BYTES) {
      this.end[this.end.length - 1] = end * PAGE_BYTES;
      return;
    }
    this.start.push(start * PAGE_BYTES);
    this.end.push(end * PAGE_BYTES);
  }

  finish(): RangeColumns {
    return { start: new Float64Array(this.start), end: new Float64Array(this.end) };
  }
}

class UnfreeBuilder {
  private readonly start: number[] = [];
  private readonly end: number[] = [];
  private readonly refs: number[] = [];

  push(start: number, end: number, refs: number): void {
    const last = this.end.length - 1;
    if (this.end[last] === start * PAGE_BYTES && this.refs[last] === refs) {
      this.end[last] = end * PAGE_BYTES;
      return;
    }
    this.start.push(start * PAGE_BYTES);
    this.end.push(end * PAGE_BYTES);
    this.refs.push(refs);
  }

  finish(): UnfreeColumns {
    return {
      start: new Float64Array(this.start),
      end: new Float64Array(this.end),
      refs: new Float64Array(this.refs),
    };
  }
}

class MemAcctBuilder {
  private readonly start: number[] = [];
  private readonly end: number[] = [];
  private readonly kind: number[] = [];
  private readonly group: number[] = [];
  private readonly known: number[] = [];

  push(start: number, end: number, kind: number, group: number, known: number): void {
    const last = this.end.length - 1;
    if (
      this.end[last] === start * PAGE_BYTES &&
      this.kind[last] === kind &&
      this.group[last] === group &&
      this.known[last] === known
    ) {
      this.end[last] = end * PAGE_BYTES;
      return;
    }
    this.start.push(start * PAGE_BYTES);
    this.end.push(end * PAGE_BYTES);
    this.kind.push(kind);
    this.group.push(group);
    this.known.push(known);
  }

  finish(): MemAcctColumns {
    return {
      start: new Float64Array(this.start),
      end: new Float64Array(this.end),
      kind: new Uint32Array(this.kind),
      group: new Uint32Array(this.group),
      knownCommitted: new Uint8Array(this.known),
    };
  }
}
