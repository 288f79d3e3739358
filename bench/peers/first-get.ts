/**
 * Opens a map that another process filled, gets one entry, and prints the milliseconds since the
 * start of this process.
 */
import { type KeyKind, openMap } from "./maps.ts";

const [by, directory, kind, key] = process.argv.slice(2) as [string, string, KeyKind, string];
if (by === "pgalloc") {
  const { Store } = await import("../../src/data/index.ts");
  const store = await Store.open(directory, { readOnly: true });
  const found = await store.whenLoaded(() => store.map("bench", { key: kind }).get(key as never));
  console.log(performance.now(), found?.length);
} else {
  const map = await openMap(by, directory, kind);
  console.log(performance.now(), map.get(key)?.length);
}
process.exit(0);
