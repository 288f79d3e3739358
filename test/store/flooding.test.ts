/** Keys that were chosen to collide: they need the hash's key, which each store draws at random. */
import { afterAll, expect, test } from "bun:test";
import { join } from "node:path";
import { Store } from "../../src/data/index.ts";
import { MapWord } from "../../src/data/buckets.ts";
import { Keys } from "../../src/data/keys.ts";
import { Root } from "../../src/data/layout.ts";
import { arenaOf, temporaryDirectory } from "./support/support.ts";

const directory = temporaryDirectory();
afterAll(directory.remove);

const COUNT = 800;

/** Keys whose hashes with the key (0, 0) begin with the same 11 bits. */
function collidingKeys(): string[] {
  const keys = new Keys("string", 0, 0);
  const found: string[] = [];
  for (let i = 0; found.length < COUNT; i++) {
    const key = `attack-${i}`;
    keys.put(key);
    if (keys.hash >>> 21 === 0) found.push(key);
  }
  return found;
}

/** How often a bucket of the map was split on one path. */
function depthOf(store: Store): number {
  const { place } = store.map("m") as unknown as { place: { window: number; word: number } };
  return arenaOf(store).get(place.window, place.word + MapWord.Depth);
}

async function depthAfter(where: string, keys: readonly string[], zeroSeed: boolean) {
  const store = await Store.open(where, { create: true });
  if (zeroSeed) arenaOf(store).root.fill(0, Root.SeedLow, Root.SeedHigh + 1);
  await store.close();
  await using again = await Store.open(where);
  const map = await again.whenLoaded(() => again.map("m"));
  await again.memory.awaitLoad();
  for (const key of keys) map.set(key, new Uint8Array(1));
  for (const key of keys) expect(map.has(key)).toBe(true);
  return depthOf(again);
}

test("keys that collide under a known hash key spread in a store as any others", async () => {
  const keys = collidingKeys();
  // With the key that they were chosen for, they all go one way: the attack works.
  expect(await depthAfter(join(directory.path, "known"), keys, true)).toBeGreaterThanOrEqual(11);
  expect(await depthAfter(join(directory.path, "random"), keys, false)).toBeLessThanOrEqual(4);
});

test("two stores hash with different keys", async () => {
  await using a = await Store.open(join(directory.path, "a"), { create: true });
  await using b = await Store.open(join(directory.path, "b"), { create: true });
  const seedOf = (store: Store) => arenaOf(store).root.slice(Root.SeedLow, Root.SeedHigh + 1);
  expect(seedOf(a)).not.toEqual(seedOf(b));
});
