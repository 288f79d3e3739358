/**
 * Opens a map that another process filled, gets one entry, and prints the time in ms since 1970 and
 * the entry's length.
 */
import { type KeyKind, openMap } from "./maps.ts";

const [by, directory, kind, key] = process.argv.slice(2) as [string, string, KeyKind, string];

async function find(): Promise<Uint8Array | undefined> {
  if (by !== "pgalloc") return (await openMap(by, directory, kind)).get(key);
  const { Store } = await import("../../src/data/index.ts");
  const store = await Store.open(directory, { readOnly: true });
  return await store.whenLoaded(() => store.map("bench", { key: kind }).get(key as never));
}

const found = await find();
console.log(performance.timeOrigin + performance.now(), found?.length);
process.exit(0);
