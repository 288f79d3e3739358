/** DemandQueue: takes wanted units of several loads, for a thread that reads them. */
import { LoadGroup, GroupWord } from "./group.ts";
import { LoadWord, WORDS_PER_UNIT } from "./load-tables.ts";
import { type LoadEntry, OpenLoad } from "./open-load.ts";

/** Open loads that a thread keeps. Opening one takes some 20 µs. */
const OPEN_MAX = 16;

export class DemandQueue {
  /** Bits of the unit that `take` returned. */
  readonly want = new Int32Array(WORDS_PER_UNIT);
  readonly group: LoadGroup;
  private readonly entries: readonly LoadEntry[];
  private readonly words: readonly Int32Array[];
  private readonly open = new Map<number, OpenLoad>();
  private readonly byIndex: boolean;
  private last = -1;

  /** @param entries all loads of a group in order, or some of them; at least one */
  constructor(entries: readonly LoadEntry[]) {
    this.entries = entries;
    this.group = new LoadGroup(entries[0]!.state.group);
    this.words = entries.map(({ state }) => new Int32Array(state.tables));
    this.byIndex = entries.length === this.group.words[GroupWord.LoadCount];
  }

  /** A wanted unit and its load, or null if there is none. */
  take(): { readonly load: OpenLoad; readonly unit: number } | null {
    if (!this.byIndex) return this.takeOfSome();
    for (;;) {
      const index = this.group.takeLoad(this.last);
      if (index < 0) return null;
      const load = this.enter(index);
      const unit = load?.state.demands.take(this.want) ?? -1;
      if (load === null || unit < 0) continue;
      this.group.wantAgain(index);
      this.last = index;
      return { load, unit };
    }
  }

  /** Without the group's bitmap, because other threads serve the other loads. */
  private takeOfSome(): { readonly load: OpenLoad; readonly unit: number } | null {
    for (let at = 0; at < this.entries.length; at++) {
      const load = this.enter(at);
      const unit = load?.state.demands.take(this.want) ?? -1;
      if (load !== null && unit >= 0) return { load, unit };
    }
    return null;
  }

  private enter(at: number): OpenLoad | null {
    const known = this.open.get(at);
    if (known !== undefined) return known;
    const load = OpenLoad.enter(this.entries[at]!);
    if (load === null) return null;
    if (this.open.size >= OPEN_MAX) this.leave(() => true);
    this.open.set(at, load);
    return load;
  }

  /** True while a load has pending pages and is not stopped. */
  get isLoading(): boolean {
    return this.words.some(
      (words) => words[LoadWord.PendingPages]! > 0 && words[LoadWord.Stop] === 0,
    );
  }

  /** True if this thread has units of a stopped load in flight. */
  get hasStopped(): boolean {
    for (const { state, inFlight } of this.open.values())
      if (inFlight > 0 && !state.isLoading) return true;
    return false;
  }

  /** Leaves loads that have ended. */
  leaveEnded(): void {
    this.leave(({ state }) => !state.isLoading);
  }

  /** Leaves all. Precondition: nothing is in flight in this thread. */
  close(): void {
    this.leave(() => true);
  }

  private leave(isOver: (load: OpenLoad) => boolean): void {
    for (const [at, load] of this.open) {
      if (load.inFlight > 0 || !isOver(load)) continue;
      load.close();
      this.open.delete(at);
    }
  }

  /** Open loads, for checks. */
  get opened(): Iterable<OpenLoad> {
    return this.open.values();
  }
}
