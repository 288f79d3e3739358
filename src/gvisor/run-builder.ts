/**
 * Collects runs in ascending order into an image's columns, and joins neighbours; see ImageRuns.
 */
import { assert } from "../errors/errors.ts";
import { HUGE_PAGES, type ImageRuns, RunState } from "./image.ts";

export class RunBuilder {
  private readonly start: number[] = [];
  private readonly length: number[] = [];
  private readonly state: number[] = [];
  private readonly refs: number[] = [];
  private readonly kind: number[] = [];
  private readonly group: number[] = [];
  // The run that may still grow, as scalars: an object for each of 131,072 runs is too slow
  // (docs/decisions/hot-paths.md).
  private pendingStart = 0;
  private pendingEnd = 0;
  private pendingState = 0;
  private pendingRefs = 0;
  private pendingKind = 0;
  private pendingGroup = 0;

  /**
   * @param onSubReleased called for every joined range of sub-released pages, including whole huge
   * pages, in ascending order
   */
  constructor(private readonly onSubReleased: (start: number, end: number) => void) {}

  /** The next pages are in chunks of another page size: no run crosses this point. */
  startGroup(): void {
    this.flush();
  }

  /** Adds pages [start, end), which are after all earlier ones. */
  push(start: number, end: number, state: number, refs: number, kind: number, group: number): void {
    if (
      this.pendingEnd === start &&
      this.pendingState === state &&
      this.pendingRefs === refs &&
      this.pendingKind === kind &&
      this.pendingGroup === group
    ) {
      this.pendingEnd = end;
      return;
    }
    const { pendingEnd } = this;
    assert(start >= pendingEnd, () => `pages [${start}, ${end}) after page ${pendingEnd}`);
    this.flush();
    this.pendingStart = start;
    this.pendingEnd = end;
    this.pendingState = state;
    this.pendingRefs = refs;
    this.pendingKind = kind;
    this.pendingGroup = group;
  }

  finish(): ImageRuns {
    this.flush();
    return {
      start: new Uint32Array(this.start),
      length: new Uint32Array(this.length),
      state: new Uint8Array(this.state),
      refs: new Uint32Array(this.refs),
      kind: new Uint8Array(this.kind),
      group: new Uint32Array(this.group),
    };
  }

  private flush(): void {
    const [start, end, state] = [this.pendingStart, this.pendingEnd, this.pendingState];
    if (state === 0) return;
    if (state !== RunState.subReleased) {
      this.append(start, end);
    } else {
      this.onSubReleased(start, end);
      // Huge pages that are sub-released as a whole are free.
      const firstWhole = Math.ceil(start / HUGE_PAGES) * HUGE_PAGES;
      const lastWhole = Math.floor(end / HUGE_PAGES) * HUGE_PAGES;
      if (firstWhole >= lastWhole) {
        this.append(start, end);
      } else {
        if (start < firstWhole) this.append(start, firstWhole);
        if (lastWhole < end) this.append(lastWhole, end);
      }
    }
    this.pendingState = 0;
  }

  private append(start: number, end: number): void {
    this.start.push(start);
    this.length.push(end - start);
    this.state.push(this.pendingState);
    this.refs.push(this.pendingRefs);
    this.kind.push(this.pendingKind);
    this.group.push(this.pendingGroup);
  }
}
