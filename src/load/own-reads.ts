/** OwnReads: pages that a thread waits for and reads by itself, from a source that can block. */
import { LoadWord, PAGES_PER_UNIT } from "./load-tables.ts";
import { OpenLoad, OWN_WINDOW_PAGES } from "./open-load.ts";
import { openBlockingReader } from "../source/open.ts";
import type { LoadState } from "./load-state.ts";
import type { Control } from "../control/control.ts";
import { UnitReader } from "./unit-reader.ts";

/**
 * Until there is a demand thread, a thread that awaits at most this many pages (2 MiB) reads them
 * itself. From the page cache that takes 0.3 to 2 ms; starting the demand thread takes 3 to 100 ms.
 * The example word-search begins with ranges of 1 MiB: its first answer came after 176 ms, and
 * after 309 ms with a limit of 256 KiB (medians of 6 starts in turns, on a slow machine with other
 * users).
 */
export const OWN_READ_PAGES = 512;
/** After reading this long in one turn of the event loop, a thread lets other work run. */
const TURN_MS = 1;

export class OwnReads {
  private readonly options: {
    readonly control: Control;
    readonly state: LoadState;
    readonly base: number;
  };
  private open: { readonly load: OpenLoad; readonly reader: UnitReader } | undefined;
  /** How long this thread has read in this turn of its event loop. */
  private turnMs = 0;

  constructor(options: OwnReads["options"]) {
    this.options = options;
  }

  /** True if this turn of the event loop has time for a read. */
  get hasTime(): boolean {
    return this.turnMs < TURN_MS;
  }

  /** Reads in this turn of the event loop. Precondition: `hasTime`. */
  readInTurn(start: number, end: number): void {
    if (this.turnMs === 0) {
      setImmediate(() => {
        this.turnMs = 0;
      });
    }
    const beganMs = performance.now();
    this.read(start, end);
    this.turnMs += performance.now() - beganMs;
  }

  /** Reads the pages of [start, end) that no thread has started. */
  read(start: number, end: number): void {
    const { state } = this.options;
    if (state.words[LoadWord.Stop] !== 0) return;
    // Makes the background pass yield.
    state.group.noteDemand();
    this.open ??= {
      load: new OpenLoad(this.options, OWN_WINDOW_PAGES),
      reader: new UnitReader(openBlockingReader(state.handle.source, "demand"), 1),
    };
    const { load, reader } = this.open;
    const last = state.lastUnitOf(end);
    for (let unit = Math.floor(start / PAGES_PER_UNIT); unit < last; unit++) {
      const from = Math.max(start, unit * PAGES_PER_UNIT);
      reader.readPages(load, unit, from, Math.min(end, (unit + 1) * PAGES_PER_UNIT));
    }
  }

  /** Frees the reader. Nothing is in flight between calls. */
  close(): void {
    this.open?.load.close();
    void this.open?.reader.close();
    this.open = undefined;
  }
}
