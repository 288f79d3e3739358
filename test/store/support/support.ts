/** What tests of stores share. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Arena } from "../../../src/data/arena.ts";
import type { Store } from "../../../src/data/index.ts";

/** A new directory, and what removes it. */
export function temporaryDirectory(): { path: string; remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), "pgalloc-store-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/** Bytes as text that `toEqual` compares. */
export const hex = (bytes: Uint8Array | undefined): string | undefined =>
  bytes === undefined ? undefined : Buffer.from(bytes).toString("hex");

/** A map's entries in the order of their keys. */
export const sortedEntries = (
  entries: Iterable<readonly [unknown, Uint8Array]>,
): [string, string][] =>
  [...entries]
    .map(([key, value]): [string, string] => [String(key), hex(value)!])
    .sort(([a], [b]) => (a < b ? -1 : 1));

export class InjectedError extends Error {}

/** The arena behind a store: for faults that no argument can cause. */
export const arenaOf = (store: Store): Arena => (store as unknown as { arena: Arena }).arena;

/**
 * Runs `operate` once for each word that it changes, and has that change fail. `verify` is called
 * after each failure; the last run succeeds. Returns how many failures there were.
 */
export function failAtEachStep(store: Store, operate: () => void, verify: () => void): number {
  const arena = arenaOf(store);
  for (let failAt = 0; ; failAt++) {
    let left = failAt;
    const fail = () => {
      if (left-- === 0) throw new InjectedError("injected");
    };
    const { set, setRoot, takeRange } = arena;
    arena.set = (...call) => {
      fail();
      set.apply(arena, call);
    };
    arena.setRoot = (...call) => {
      fail();
      setRoot.apply(arena, call);
    };
    arena.takeRange = (...call) => {
      fail();
      return takeRange.apply(arena, call);
    };
    try {
      operate();
      return failAt;
    } catch (error) {
      if (!(error instanceof InjectedError)) throw error;
    } finally {
      Object.assign(arena, { set, setRoot, takeRange });
    }
    verify();
  }
}
