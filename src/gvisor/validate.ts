/**
 * Turns metadata into runs of pages, and trusts none of it.
 *
 * These rules must hold for each page (gVisor's own invariants; comment of MemoryFile in
 * pkg/sentry/pgalloc/pgalloc.go):
 *
 *   state          unfree set of its size   unwaste set of its size   mem_acct   chunks
 *   free           not in it                in it                     no         any (1)
 *   used           refs > 0                 in it                     yes        any
 *   waste          refs 0                   not in it                 System     any
 *   sub-released   refs 0                   in it                     no         huge
 *   (1) in huge chunks, whole huge pages
 *
 * Both sets of the *other* page size contain every page of a chunk, with refs 0, and all four sets
 * contain the void after the last chunk up to 2^64-1. Every other combination is refused. Sets are
 * ordered; neighbours of equal value need not be joined, and are joined here.
 *
 * The rules above already determine the counts of `subreleased`, so they are only compared. A count
 * may be too small: when a release spans several huge pages, gVisor does not add the pages that it
 * sub-releases in the first and the last one, and never frees such a huge page. The pages decide: a
 * huge page whose pages are all sub-released is free here.
 */
import { CorruptCheckpointError } from "../errors/errors.ts";
import {
  CHUNK_PAGES,
  CHUNKS_MAX,
  type CommittedPages,
  forEachChunkGroup,
  HUGE_PAGES,
  type ImageRuns,
  KIND_MAX,
  PAGE_BYTES,
  REFS_MAX,
  RunState,
} from "./image.ts";
import type { CheckpointLimits, GvisorMetadata, RangeColumns, UnfreeColumns } from "./metadata.ts";
import { RunBuilder } from "./run-builder.ts";
import { Cursor } from "./set-cursor.ts";
import { SubreleaseCounts } from "./subrelease-counts.ts";
import { U64_MAX } from "./wire.ts";

/** An image without the places of its contents: see `locateInPagesFile` and `locateInStream`. */
export interface ValidMetadata {
  readonly chunkHuge: Uint8Array;
  readonly runs: ImageRuns;
  /**
   * In the order in which contents are stored. Each is one range of equal accounting, as in
   * gVisor's headers.
   */
  readonly committed: CommittedPages;
}

/** @throws {CorruptCheckpointError} naming the section and range that break a rule, or the limit */
export function validateMetadata(
  metadata: GvisorMetadata,
  limits: CheckpointLimits = {},
  path?: string,
): ValidMetadata {
  const check = new Checker(metadata, path);
  check.limits(limits);
  check.order();
  check.void();
  const runs = check.runs();
  return { chunkHuge: metadata.chunks.huge.slice(), runs, committed: check.committed() };
}

class Checker {
  private readonly sizeBytes: number;

  constructor(
    private readonly metadata: GvisorMetadata,
    private readonly path: string | undefined,
  ) {
    this.sizeBytes = metadata.chunks.huge.length * CHUNK_PAGES * PAGE_BYTES;
  }

  private corrupt(section: string, message: string): CorruptCheckpointError {
    return new CorruptCheckpointError(
      message,
      this.path === undefined ? { section } : { section, path: this.path },
    );
  }

  limits({
    chunksMax = CHUNKS_MAX,
    limitBytes = Number.POSITIVE_INFINITY,
  }: CheckpointLimits): void {
    const chunks = this.metadata.chunks.huge.length;
    const most = Math.min(chunksMax, CHUNKS_MAX);
    if (chunks > most)
      throw this.corrupt("chunks", `Checkpoint has ${chunks} chunks; at most ${most} are allowed`);
    if (this.sizeBytes > limitBytes) {
      throw this.corrupt(
        "chunks",
        `Checkpoint has ${this.sizeBytes} bytes; limitBytes allows ${limitBytes}`,
      );
    }
  }

  /** Each set alone: aligned, ordered, disjoint. */
  order(): void {
    const { memAcct, unfreeSmall, unfreeHuge, unwasteSmall, unwasteHuge } = this.metadata;
    this.checkOrder("mem_acct", memAcct, this.sizeBytes);
    this.checkOrder("unfree_small", unfreeSmall, U64_MAX);
    this.checkOrder("unfree_huge", unfreeHuge, U64_MAX);
    this.checkOrder("unwaste_small", unwasteSmall, U64_MAX);
    this.checkOrder("unwaste_huge", unwasteHuge, U64_MAX);
    for (const [section, { start, refs }] of [
      ["unfree_small", unfreeSmall],
      ["unfree_huge", unfreeHuge],
    ] as const) {
      const index = refs.findIndex((count) => count > REFS_MAX);
      if (index >= 0) {
        const many = refs[index] === U64_MAX ? "2^64-1" : refs[index];
        throw this.corrupt(
          section,
          `Pages at ${start[index]} have ${many} references; at most ${REFS_MAX} are supported`,
        );
      }
    }
    const kind = memAcct.kind.findIndex((value) => value > KIND_MAX);
    if (kind >= 0)
      throw this.corrupt(
        "mem_acct",
        `Pages at ${memAcct.start[kind]} are of unknown kind ${memAcct.kind[kind]}`,
      );
  }

  private checkOrder(section: string, { start, end }: RangeColumns, endMax: number): void {
    let previousEnd = 0;
    for (let i = 0; i < start.length; i++) {
      const first = start[i]!;
      const last = end[i]!;
      if (!(first < last)) throw this.corrupt(section, `Range ${range(first, last)} is empty`);
      if (first % PAGE_BYTES !== 0 || (last !== U64_MAX && last % PAGE_BYTES !== 0)) {
        throw this.corrupt(section, `Range ${range(first, last)} is not aligned to pages`);
      }
      if (first < previousEnd)
        throw this.corrupt(section, `Range ${range(first, last)} begins before ${previousEnd}`);
      if (last > endMax)
        throw this.corrupt(section, `Range ${range(first, last)} ends beyond ${endMax}`);
      previousEnd = last;
    }
  }

  /** All four sets hold everything after the last chunk. */
  void(): void {
    const { unfreeSmall, unfreeHuge, unwasteSmall, unwasteHuge } = this.metadata;
    this.checkCovered("unfree_small", unfreeSmall, this.sizeBytes, U64_MAX, unfreeSmall.refs);
    this.checkCovered("unfree_huge", unfreeHuge, this.sizeBytes, U64_MAX, unfreeHuge.refs);
    this.checkCovered("unwaste_small", unwasteSmall, this.sizeBytes, U64_MAX);
    this.checkCovered("unwaste_huge", unwasteHuge, this.sizeBytes, U64_MAX);
  }

  /** Throws unless [from, to) is in the set; without references if `refs` are given. */
  private checkCovered(
    section: string,
    { start, end }: RangeColumns,
    from: number,
    to: number,
    refs?: Float64Array,
  ): void {
    let reached = from;
    for (let i = firstEndingBehind(end, from); reached < to; i++) {
      if (i >= start.length || start[i]! > reached) {
        throw this.corrupt(
          section,
          `Range ${range(reached, Math.min(to, start[i] ?? to))} is missing`,
        );
      }
      if (refs !== undefined && refs[i] !== 0) {
        throw this.corrupt(
          section,
          `Range ${range(start[i]!, end[i]!)} has references, but is void or of the other page ` +
            "size",
        );
      }
      reached = end[i]!;
    }
  }

  runs(): ImageRuns {
    const { chunks, unfreeSmall, unfreeHuge, unwasteSmall, unwasteHuge, memAcct, subreleased } =
      this.metadata;
    const counts = new SubreleaseCounts(subreleased);
    const builder = new RunBuilder((start, end) => counts.found(start, end));
    const acct = new Cursor(memAcct);
    const small = {
      unfree: unfreeSmall,
      cursor: new Cursor(unfreeSmall),
      unwaste: new Cursor(unwasteSmall),
    };
    const huge = {
      unfree: unfreeHuge,
      cursor: new Cursor(unfreeHuge),
      unwaste: new Cursor(unwasteHuge),
    };
    forEachChunkGroup(chunks.huge, (group) => {
      const [from, to] = [group.start * PAGE_BYTES, group.end * PAGE_BYTES];
      if (group.huge) {
        this.checkCovered("unfree_small", unfreeSmall, from, to, unfreeSmall.refs);
        this.checkCovered("unwaste_small", unwasteSmall, from, to);
      } else {
        this.checkCovered("unfree_huge", unfreeHuge, from, to, unfreeHuge.refs);
        this.checkCovered("unwaste_huge", unwasteHuge, from, to);
      }
      builder.startGroup();
      this.sweep(builder, from, to, group.huge, { ...(group.huge ? huge : small), acct });
    });
    const runs = builder.finish();
    counts.check((message) => this.corrupt("subreleased", message));
    return runs;
  }

  /** Visits chunks of one page size, from one border of any set to the next. */
  private sweep(
    builder: RunBuilder,
    from: number,
    to: number,
    huge: boolean,
    sets: SweptSets,
  ): void {
    const { memAcct } = this.metadata;
    for (let at = from; at < to; ) {
      sets.cursor.seek(at);
      sets.unwaste.seek(at);
      sets.acct.seek(at);
      const next = Math.min(to, sets.cursor.border, sets.unwaste.border, sets.acct.border);
      const state = this.stateOf(sets, huge, at, next);
      if (state !== 0) {
        const accounted = state === RunState.subReleased ? -1 : sets.acct.index;
        const refs = sets.unfree.refs[sets.cursor.index]!;
        const kind = accounted < 0 ? 0 : memAcct.kind[accounted]!;
        const group = accounted < 0 ? 0 : memAcct.group[accounted]!;
        builder.push(at / PAGE_BYTES, next / PAGE_BYTES, state, refs, kind, group);
      }
      at = next;
    }
  }

  /** The table at the top of this file; 0 is free. */
  private stateOf(sets: SweptSets, huge: boolean, start: number, end: number): number {
    const suffix = huge ? "huge" : "small";
    const waste = !sets.unwaste.inside;
    const accounted = sets.acct.inside;
    if (!sets.cursor.inside) {
      if (waste)
        throw this.corrupt(`unwaste_${suffix}`, `Free range ${range(start, end)} is waste`);
      if (accounted)
        throw this.corrupt("mem_acct", `Free range ${range(start, end)} is accounted for`);
      // Borders within free space are borders of the other sets, where nothing changes: check the
      // whole gap.
      this.checkFreeGap(sets, huge);
      return 0;
    }
    if (sets.unfree.refs[sets.cursor.index]! > 0) {
      if (waste)
        throw this.corrupt(
          `unwaste_${suffix}`,
          `Range ${range(start, end)} has references, but is waste`,
        );
      if (!accounted) throw this.corrupt("mem_acct", `Used range ${range(start, end)} is missing`);
      return RunState.used;
    }
    if (waste) {
      if (!accounted) throw this.corrupt("mem_acct", `Waste range ${range(start, end)} is missing`);
      const kind = this.metadata.memAcct.kind[sets.acct.index];
      if (kind !== 0)
        throw this.corrupt("mem_acct", `Waste range ${range(start, end)} is of kind ${kind}`);
      return RunState.waste;
    }
    if (!huge || accounted) {
      throw this.corrupt(
        `unfree_${suffix}`,
        `Range ${range(start, end)} has no references, but is neither free nor waste`,
      );
    }
    return RunState.subReleased;
  }

  private checkFreeGap(sets: SweptSets, huge: boolean): void {
    if (!huge) return;
    const hugeBytes = HUGE_PAGES * PAGE_BYTES;
    const { gapStart, border } = sets.cursor;
    // A gap that leaves its chunk ends within chunks of small pages, whose pages this set holds, so
    // it ends at a multiple.
    if (gapStart % hugeBytes !== 0 || border % hugeBytes !== 0) {
      throw this.corrupt(
        "unfree_huge",
        `Free range ${range(gapStart, border)} is not aligned to huge pages`,
      );
    }
  }

  /**
   * Known-committed ranges; neighbours of equal accounting are joined, as gVisor's set does before
   * it looks for contents.
   */
  committed(): CommittedPages {
    const { start, end, kind, group, knownCommitted } = this.metadata.memAcct;
    const first: number[] = [];
    const length: number[] = [];
    let previous = -1;
    for (let i = 0; i < start.length; i++) {
      if (knownCommitted[i] !== 1) continue;
      const pages = (end[i]! - start[i]!) / PAGE_BYTES;
      if (
        previous >= 0 &&
        end[previous] === start[i] &&
        kind[previous] === kind[i] &&
        group[previous] === group[i]
      ) {
        length[length.length - 1]! += pages;
      } else {
        first.push(start[i]! / PAGE_BYTES);
        length.push(pages);
      }
      previous = i;
    }
    return { start: new Uint32Array(first), length: new Uint32Array(length) };
  }
}

interface SweptSets {
  readonly unfree: UnfreeColumns;
  readonly cursor: Cursor;
  readonly unwaste: Cursor;
  readonly acct: Cursor;
}

/** Index of the first range that ends after `at`. */
function firstEndingBehind(end: Float64Array, at: number): number {
  let low = 0;
  let high = end.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (end[middle]! > at) high = middle;
    else low = middle + 1;
  }
  return low;
}

function range(start: number, end: number): string {
  return `[${start}, ${end === U64_MAX ? "2^64-1" : end})`;
}
