/** What the structures of a store have in common: one of each in a thread. */
import type { Arena } from "./arena.ts";
import { Blocks } from "./blocks.ts";
import { Names } from "./header.ts";
import { Root } from "./layout.ts";
import { Pages } from "./pages.ts";

export class StoreParts {
  readonly arena: Arena;
  readonly pages: Pages;
  readonly blocks: Blocks;
  readonly names: Names;
  readonly seedLow: number;
  readonly seedHigh: number;
  /** The time in ms, for expiry. */
  readonly now: () => number;

  constructor(arena: Arena, now: () => number) {
    this.arena = arena;
    this.pages = new Pages(arena);
    this.blocks = new Blocks(arena, this.pages);
    this.names = new Names(arena, this.pages);
    this.seedLow = arena.root[Root.SeedLow]!;
    this.seedHigh = arena.root[Root.SeedHigh]!;
    this.now = now;
  }

  /** Call after an operation that may have freed memory: gives much free memory back. */
  tidy(): void {
    // Pages are missing: not all free ones are known.
    if (this.pages.hasGarbage && !this.arena.isMissing) this.pages.purge();
  }
}
