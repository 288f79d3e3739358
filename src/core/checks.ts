/**
 * Checks that a program asks for with `checks: true`, or PGALLOC_CHECKS=1 in the environment. They
 * catch mistakes that otherwise corrupt memory silently:
 *
 * - A view ends (has length 0) when one of its pages loses its last reference. Another thread's
 *   views end at its next call on the file.
 * - Freed pages with contents are filled with 0xDB until the kernel has them back, so a stale read
 *   is noticed at once.
 * - A call on pages without references names the place in the program that dropped them first.
 *
 * Without checks, none of this code runs.
 */
import { fillMemory } from "../../ffi/index.ts";
import { Word } from "../control/control.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import type { Allocator } from "../allocator/allocator.ts";
import type { Mapping } from "../memory/mapping.ts";
import type { Views } from "../memory/views.ts";

const POISON = 0xdb;
/** The most pages that one drop fills. */
const POISON_MAX_PAGES = 65_536;
const RECORDS_MAX = 10_000;

/** The parts of a file's core that the checks use. */
interface CheckedFile {
  readonly words: Int32Array;
  readonly mapping: Mapping;
  readonly views: Views;
  readonly allocator: Allocator;
  readonly discards: number;
  /** The first page at or after `page` that may be committed. */
  nextData(page: number): number;
}

interface Drop {
  readonly start: number;
  readonly end: number;
  /** The stack of the program's call that dropped them. */
  readonly stack: string;
}

export class Checks {
  private readonly core: CheckedFile;
  /** Drops by this thread, newest last. */
  private drops: Drop[] = [];
  private seenDiscards = 0;

  constructor(core: CheckedFile) {
    this.core = core;
    this.seenDiscards = core.discards;
  }

  /** Lock held: pages [start, end) have just lost their last reference. */
  discarded(start: number, end: number): void {
    const stack = (new Error().stack ?? "").split("\n").slice(1);
    this.drops.push({ start, end, stack: stack.join("\n") });
    if (this.drops.length > RECORDS_MAX) this.drops = this.drops.slice(RECORDS_MAX / 2);
    // A save in another thread may still copy the pages with their old contents.
    if (this.core.words[Word.Saving] === 0) this.poison(start, end);
  }

  private poison(start: number, end: number): void {
    const { core } = this;
    const last = Math.min(end, start + POISON_MAX_PAGES);
    for (let page = start; page < last; page++) {
      // Pages that were never touched stay untouched.
      page = core.nextData(page);
      if (page >= last) return;
      fillMemory(core.mapping.base + page * PAGE_SIZE, POISON, PAGE_SIZE);
    }
  }

  /** Ends the views of pages without references. Called before each use of the file. */
  endStaleViews(): void {
    const { core } = this;
    const { discards } = core;
    if (discards === this.seenDiscards) return;
    this.seenDiscards = discards;
    core.views.endWhere((start, end) => !core.allocator.areReferenced(start, end));
  }

  /** For a message about pages without references: the places where this thread dropped them. */
  whereDropped(start: number, end: number): string {
    const drop = this.drops.findLast((each) => each.start < end && start < each.end);
    if (drop === undefined) return "; no drop of them by this thread is known";
    const range = `[${drop.start * PAGE_SIZE}, ${drop.end * PAGE_SIZE})`;
    return `; ${range} was dropped here:\n${drop.stack}\n---`;
  }
}
