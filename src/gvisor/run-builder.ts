/** Collects runs in ascending order into an image's columns, joined as far as they go; see ImageRuns. */
import { HUGE_PAGES, type ImageRuns, RunState } from "./image.ts";

export interface Run {
  /** Page indexes, half-open. */
  readonly start: number;
  readonly end: number;
  readonly state: number;
  readonly refs: number;
  readonly kind: number;
  readonly group: number;
}

export class RunBuilder {
  private readonly start: number[] = [];
  private readonly length: number[] = [];
  private readonly state: number[] = [];
  private readonly refs: number[] = [];
  private readonly kind: number[] = [];
  private readonly group: number[] = [];
  private pending: Run | null = null;

  /** `onSubReleased` is told of every joined range of sub-released pages, also of whole huge pages, in ascending order. */
  constructor(private readonly onSubReleased: (start: number, end: number) => void) {}

  /** What follows is in chunks of another page size: no run goes on across here. */
  startGroup(): void {
    this.flush();
  }

  push(run: Run): void {
    const last = this.pending;
    if (
      last !== null &&
      last.end === run.start &&
      last.state === run.state &&
      last.refs === run.refs &&
      last.kind === run.kind &&
      last.group === run.group
    ) {
      this.pending = { ...last, end: run.end };
      return;
    }
    this.flush();
    this.pending = run;
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
    const run = this.pending;
    this.pending = null;
    if (run === null) return;
    if (run.state !== RunState.subReleased) {
      this.append(run, run.start, run.end);
      return;
    }
    this.onSubReleased(run.start, run.end);
    // Huge pages that are sub-released as a whole are free.
    const firstWhole = Math.ceil(run.start / HUGE_PAGES) * HUGE_PAGES;
    const lastWhole = Math.floor(run.end / HUGE_PAGES) * HUGE_PAGES;
    if (firstWhole >= lastWhole) {
      this.append(run, run.start, run.end);
      return;
    }
    if (run.start < firstWhole) this.append(run, run.start, firstWhole);
    if (lastWhole < run.end) this.append(run, lastWhole, run.end);
  }

  private append(run: Run, start: number, end: number): void {
    this.start.push(start);
    this.length.push(end - start);
    this.state.push(run.state);
    this.refs.push(run.refs);
    this.kind.push(run.kind);
    this.group.push(run.group);
  }
}
