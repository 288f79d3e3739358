/** Runs of pages as two columns, passed from one step of a save to the next. */
export interface PageRuns {
  /** First pages, ascending; the runs are disjoint. */
  readonly start: Uint32Array;
  readonly length: Uint32Array;
}

const FIRST_RUNS = 256;

/** Collects runs. A run that begins where the last one ended extends it. */
export class RunCollector {
  private starts = new Uint32Array(FIRST_RUNS);
  private lengths = new Uint32Array(FIRST_RUNS);
  private count = 0;
  /** Pages of all runs. */
  pages = 0;

  /** Precondition: start < end, and start is not before the end of the last run. */
  add(start: number, end: number): void {
    const last = this.count - 1;
    this.pages += end - start;
    if (last >= 0 && this.starts[last]! + this.lengths[last]! === start) {
      this.lengths[last]! += end - start;
      return;
    }
    if (this.count === this.starts.length) {
      this.starts = grown(this.starts);
      this.lengths = grown(this.lengths);
    }
    this.starts[this.count] = start;
    this.lengths[this.count++] = end - start;
  }

  /** The runs so far; they change with the next `add` or `clear`. */
  get runs(): PageRuns {
    return {
      start: this.starts.subarray(0, this.count),
      length: this.lengths.subarray(0, this.count),
    };
  }

  clear(): void {
    this.count = this.pages = 0;
  }
}

function grown(column: Uint32Array): Uint32Array<ArrayBuffer> {
  const larger = new Uint32Array(2 * column.length);
  larger.set(column);
  return larger;
}

/** The pages that are in both sets. Time: O(runs of both). */
export function intersectRuns(a: PageRuns, b: PageRuns): RunCollector {
  const both = new RunCollector();
  for (let i = 0, j = 0; i < a.start.length && j < b.start.length; ) {
    const endA = a.start[i]! + a.length[i]!;
    const endB = b.start[j]! + b.length[j]!;
    const start = Math.max(a.start[i]!, b.start[j]!);
    const end = Math.min(endA, endB);
    if (start < end) both.add(start, end);
    if (endA <= endB) i++;
    else j++;
  }
  return both;
}

/** The pages that are in either set. Time: O(runs of both). */
export function uniteRuns(a: PageRuns, b: PageRuns): RunCollector {
  const all = new RunCollector();
  const { start, length } = a;
  let end = 0;
  const add = (from: number, to: number) => {
    if (to <= end) return;
    all.add(Math.max(from, end), to);
    end = to;
  };
  for (let i = 0, j = 0; i < start.length || j < b.start.length; ) {
    const takesFirst = j >= b.start.length || (i < start.length && start[i]! <= b.start[j]!);
    if (takesFirst) add(start[i]!, start[i]! + length[i++]!);
    else add(b.start[j]!, b.start[j]! + b.length[j++]!);
  }
  return all;
}

/** The pages of `a` that are not in `b`. Time: O(runs of both). */
export function subtractRuns(a: PageRuns, b: PageRuns): PageRuns {
  const rest = new RunCollector();
  let j = 0;
  for (let i = 0; i < a.start.length; i++) {
    const end = a.start[i]! + a.length[i]!;
    let page = a.start[i]!;
    while (page < end) {
      while (j < b.start.length && b.start[j]! + b.length[j]! <= page) j++;
      const from = j < b.start.length ? b.start[j]! : end;
      if (page < from) rest.add(page, Math.min(end, from));
      page = j < b.start.length ? Math.max(from, b.start[j]! + b.length[j]!) : end;
    }
  }
  return rest.runs;
}
