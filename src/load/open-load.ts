/**
 * OpenLoad: a load as one thread reads it: its state, its memory, and windows onto that memory. A
 * loading thread that is not a participant of the file takes a slot first, so that the memory stays
 * mapped (control/participants.ts).
 */
import { type Control, openControl, Word } from "../control/control.ts";
import { freeSlot, takeSlot } from "../control/participants.ts";
import { PAGES_PER_CHUNK } from "../pages/units.ts";
import { LoadState } from "./load-state.ts";
import { type LoadHandle, LoadWord, PAGES_PER_UNIT } from "./load-tables.ts";
import { MemoryWindow } from "./memory-window.ts";
import { ReadAhead } from "./read-ahead.ts";
import { openUses, type UseRecord } from "./use-record.ts";

/** The description of a load for a loading thread. */
export interface LoadEntry {
  readonly control: SharedArrayBuffer;
  readonly state: LoadHandle;
  readonly base: number;
}

/**
 * A loading thread makes little garbage. With a buffer for a whole chunk it collects once for each
 * GiB.
 */
export const THREAD_WINDOW_PAGES = PAGES_PER_CHUNK;
/** The garbage of a program's own thread is collected as well, so its buffers are small. */
export const OWN_WINDOW_PAGES = 32 * PAGES_PER_UNIT;
/** Units of which fewer pages are read at once are checked in a window on only those pages. */
const WINDOW_JOB_PAGES_MIN = PAGES_PER_UNIT / 8;

export class OpenLoad {
  readonly control: Control;
  readonly state: LoadState;
  /** Address of page 0. */
  readonly base: number;
  /** Units in flight in this thread. Changed by its UnitReader. */
  inFlight = 0;
  readonly readAhead: ReadAhead;
  readonly uses: UseRecord | null;
  private readonly unitWindow: MemoryWindow;
  private readonly pageWindow: MemoryWindow;
  private readonly slot: number;

  /** @param slot a participant's, freed by `close`; -1: none */
  constructor(
    options: { readonly control: Control; readonly state: LoadState; readonly base: number },
    windowPages: number,
    slot = -1,
  ) {
    const { control, state, base } = options;
    this.control = control;
    this.state = state;
    this.base = base;
    this.slot = slot;
    this.readAhead = new ReadAhead(state.handle.source);
    this.uses = openUses(state.handle);
    const sizePages = state.words[LoadWord.SizePages]!;
    this.unitWindow = new MemoryWindow(base, sizePages, windowPages);
    this.pageWindow = new MemoryWindow(base, sizePages, 1);
  }

  /**
   * Opens a load in a loading thread; null if there is nothing to read, or the file is destroyed.
   */
  static enter({ control: buffer, state: handle, base }: LoadEntry): OpenLoad | null {
    const control = openControl(buffer);
    const state = new LoadState(handle);
    if (!state.isLoading) return null;
    // The thread that started this one may die, and the file with it, while this one reads.
    const slot = takeSlot(control.words);
    if (Atomics.load(control.words, Word.Destroyed) === 0)
      return new OpenLoad({ control, state, base }, THREAD_WINDOW_PAGES, slot);
    freeSlot(control.words, slot);
    return null;
  }

  /** The window for a claim of `pages` pages. */
  windowFor(pages: number): MemoryWindow {
    return pages < WINDOW_JOB_PAGES_MIN ? this.pageWindow : this.unitWindow;
  }

  /** Precondition: this thread has nothing of it in flight. */
  close(): void {
    this.unitWindow.close();
    this.pageWindow.close();
    if (this.slot >= 0) freeSlot(this.control.words, this.slot);
  }
}
