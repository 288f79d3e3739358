/**
 * MemoryFile's allocation rules with one entry for each page and linear searches: slow, and simple
 * enough to trust. Releasing follows releaseLocked of gVisor's pgalloc.go, with its map of counts.
 */
import { CHUNK_SIZE, HUGE_PAGE_SIZE, PAGE_SIZE } from "../../src/index.ts";

const CHUNK_PAGES = CHUNK_SIZE / PAGE_SIZE;
const HUGE_PAGES = HUGE_PAGE_SIZE / PAGE_SIZE;
const RELEASE_PAGES = (128 * 1024 * 1024) / PAGE_SIZE;

const FREE = 0;
const USED = 1;
const WASTE = 2;
const SUB_RELEASED = 3;
const NAMES = ["free", "used", "waste", "sub-released"];

export interface NaiveRequest {
  readonly pages: number;
  readonly huge: boolean;
  readonly topDown: boolean;
  readonly willCommit: boolean;
  readonly kind: number;
  readonly group: number;
}

export class NaiveFile {
  /** One value for each chunk. */
  private readonly huge: boolean[] = [];
  private state: Uint8Array = new Uint8Array(0);
  private refs: Int32Array = new Int32Array(0);
  private owner: Int32Array = new Int32Array(0);
  private readonly subReleased = new Map<number, number>();

  allocate(request: NaiveRequest): number {
    let start = request.willCommit ? this.find(WASTE, request) : -1;
    if (start < 0) start = this.find(FREE, request);
    if (start < 0) {
      this.grow(request);
      start = this.find(FREE, request);
    }
    const end = start + request.pages;
    this.state.fill(USED, start, end);
    this.refs.fill(1, start, end);
    this.owner.fill((request.kind << 16) | request.group, start, end);
    return start;
  }

  /** Runs of one state in chunks of one page size, in order. */
  private runs(state: number, huge: boolean): { start: number; end: number }[] {
    const runs: { start: number; end: number }[] = [];
    for (let chunk = 0; chunk < this.huge.length; chunk++) {
      if (this.huge[chunk] !== huge) continue;
      const end = (chunk + 1) * CHUNK_PAGES;
      for (let page = this.state.indexOf(state, chunk * CHUNK_PAGES); page >= 0 && page < end; ) {
        const first = page;
        while (page < end && this.state[page] === state) page++;
        const last = runs.at(-1);
        if (last?.end === first) last.end = page;
        else runs.push({ start: first, end: page });
        page = this.state.indexOf(state, page);
      }
    }
    return runs;
  }

  private find(state: number, request: NaiveRequest): number {
    const fitting = this.runs(state, request.huge).filter(
      (run) => run.end - run.start >= request.pages,
    );
    if (fitting.length === 0) return -1;
    return request.topDown ? fitting.at(-1)!.end - request.pages : fitting[0]!.start;
  }

  private grow(request: NaiveRequest): void {
    let tail = 0;
    if (this.huge.at(-1) === request.huge) {
      while (tail < this.state.length && this.state[this.state.length - 1 - tail] === FREE) {
        if (this.huge[Math.floor((this.state.length - 1 - tail) / CHUNK_PAGES)] !== request.huge)
          break;
        tail++;
      }
    }
    const chunks = Math.ceil((request.pages - tail) / CHUNK_PAGES);
    for (let i = 0; i < chunks; i++) this.huge.push(request.huge);
    const pages = this.huge.length * CHUNK_PAGES;
    const grown = <T extends Uint8Array | Int32Array>(from: T, to: T): T => {
      to.set(from);
      return to;
    };
    this.state = grown(this.state, new Uint8Array(pages));
    this.refs = grown(this.refs, new Int32Array(pages));
    this.owner = grown(this.owner, new Int32Array(pages));
  }

  isReferenced(start: number, end: number): boolean {
    let page = start;
    while (page < end && this.state[page] === USED) page++;
    return page === end;
  }

  incRef(start: number, end: number): void {
    for (let page = start; page < end; page++) this.refs[page]!++;
  }

  decRef(start: number, end: number): void {
    for (let page = start; page < end; page++) {
      if (--this.refs[page]! > 0) continue;
      this.state[page] = WASTE;
      this.owner[page] = 0;
    }
  }

  firstShared(start: number, end: number): { start: number; end: number } | null {
    let first = start;
    while (first < end && this.refs[first]! < 2) first++;
    let last = first;
    while (last < end && this.refs[last]! > 1) last++;
    return first === end ? null : { start: first, end: last };
  }

  /** Releases all waste. */
  settle(): void {
    for (const run of this.runs(WASTE, false)) this.state.fill(FREE, run.start, run.end);
    for (let runs = this.runs(WASTE, true); runs.length > 0; runs = this.runs(WASTE, true)) {
      const { start, end } = runs.at(-1)!;
      this.releaseHuge(Math.max(start, end - RELEASE_PAGES), end);
    }
  }

  private releaseHuge(start: number, end: number): void {
    this.state.fill(SUB_RELEASED, start, end);
    const first = start - (start % HUGE_PAGES);
    const last = end - 1 - ((end - 1) % HUGE_PAGES);
    for (let huge = first; huge <= last; huge += HUGE_PAGES) {
      const count = Math.min(end, huge + HUGE_PAGES) - Math.max(start, huge);
      const total = count + (this.subReleased.get(huge) ?? 0);
      if (total === HUGE_PAGES) {
        this.subReleased.delete(huge);
        this.state.fill(FREE, huge, huge + HUGE_PAGES);
      } else if (first === last) {
        this.subReleased.set(huge, total);
      }
    }
  }

  get usedPages(): number {
    return this.count(USED);
  }

  get wastePages(): number {
    return this.count(WASTE);
  }

  get subReleasedPages(): number {
    return this.count(SUB_RELEASED);
  }

  private count(state: number): number {
    const { state: states } = this;
    let pages = 0;
    for (let page = 0; page < states.length; page++) if (states[page] === state) pages++;
    return pages;
  }

  /** As MemoryFile.dump(). */
  dump(): string {
    const lines: string[] = [];
    const describe = (page: number) => {
      const owner = this.owner[page]!;
      const details =
        this.state[page] === USED
          ? ` refs=${this.refs[page]} kind=${owner >> 16} group=${owner & 0xffff}`
          : "";
      const size = this.huge[Math.floor(page / CHUNK_PAGES)] ? "huge " : "";
      return `${size}${NAMES[this.state[page]!]}${details}`;
    };
    for (let start = 0; start < this.state.length; ) {
      let end = start + 1;
      while (end < this.state.length && this.samePages(start, end)) end++;
      lines.push(`[${start * PAGE_SIZE}, ${end * PAGE_SIZE}) ${describe(start)}`);
      start = end;
    }
    return lines.join("\n");
  }

  private samePages(a: number, b: number): boolean {
    return (
      this.state[a] === this.state[b] &&
      this.refs[a] === this.refs[b] &&
      this.owner[a] === this.owner[b] &&
      this.huge[Math.floor(a / CHUNK_PAGES)] === this.huge[Math.floor(b / CHUNK_PAGES)]
    );
  }
}
