/**
 * Makes the arena of a new store, and that of a restored one, which it checks before it uses any
 * number of it.
 */
import { CorruptStoreError } from "../errors/store.ts";
import type { MemoryFile } from "../file/memory-file.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { Arena } from "./arena.ts";
import { StoreControl } from "./control.ts";
import {
  FORMAT_VERSION,
  MAGIC_HIGH,
  MAGIC_LOW,
  MAX_WINDOWS,
  ROOT_BYTES,
  ROOT_FIXED_BYTES,
  Root,
  windowAt,
} from "./layout.ts";
import { rootOf } from "./store-file.ts";

const roundUp = (bytes: number) => Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;

/** An empty store in an empty file. @throws {OutOfMemoryError} */
export function createArena(file: MemoryFile): Arena {
  const bytes = roundUp(ROOT_BYTES);
  const { start } = file.allocate(bytes);
  const arena = new Arena(file, new StoreControl(), start, false);
  const { root } = arena;
  const seed = crypto.getRandomValues(new Int32Array(2));
  root[Root.MagicLow] = MAGIC_LOW;
  root[Root.MagicHigh] = MAGIC_HIGH;
  root[Root.Version] = FORMAT_VERSION;
  root[Root.WindowCount] = 1;
  root[Root.SeedLow] = seed[0]!;
  root[Root.SeedHigh] = seed[1]!;
  return arena;
}

/** The store in a restored file: its root is loaded, and valid. @throws {CorruptStoreError} */
export async function openArena(file: MemoryFile, isReadOnly: boolean): Promise<Arena> {
  const start = rootOf(file);
  const end = start + roundUp(ROOT_BYTES);
  try {
    // Every page of it needs a reference.
    file.hasUniqueRef({ start, end });
  } catch (cause) {
    throw new CorruptStoreError("The store's root is not allocated", { cause });
  }
  const fixedEnd = start + roundUp(ROOT_FIXED_BYTES);
  await file.awaitLoad({ start, end: fixedEnd });
  const arena = new Arena(file, new StoreControl(), start, isReadOnly);
  const { root } = arena;
  // Only the part of the table that is in use: the rest of the root may be far from it on disk.
  const count = Math.max(0, Math.min(MAX_WINDOWS, root[Root.WindowCount]!));
  await file.awaitLoad({ start, end: start + roundUp(4 * windowAt(count)) });
  if (root[Root.MagicLow] !== MAGIC_LOW || root[Root.MagicHigh] !== MAGIC_HIGH)
    throw new CorruptStoreError("The store's root is damaged");
  if (root[Root.Version] !== FORMAT_VERSION)
    throw new CorruptStoreError(
      `Expected format version ${FORMAT_VERSION}, found ${root[Root.Version]}`,
    );
  if (root[Root.JournalCount] !== 0)
    throw new CorruptStoreError("The checkpoint was taken inside an operation");
  arena.readWindows();
  requireDisjoint(arena);
  return arena;
}

/** No two windows share a page. */
function requireDisjoint({ starts, words, bytes }: Arena): void {
  const used = starts
    .map((start, window) => ({ start, window }))
    .filter(({ window }) => words[window] !== undefined)
    .sort((a, b) => a.start - b.start);
  for (let i = 1; i < used.length; i++) {
    const { start, window } = used[i - 1]!;
    if (start + bytes[window]!.length > used[i]!.start)
      throw new CorruptStoreError(`Windows ${window} and ${used[i]!.window} share pages`);
  }
}
