/**
 * Opens documents that another process stored, gets one, and prints the time in ms since 1970 and
 * the length of its text.
 */
import { openDocuments } from "./documents.ts";

const [by, directory, id] = process.argv.slice(2) as [string, string, string];

async function find(): Promise<number | undefined> {
  if (by !== "pgalloc") return (await openDocuments(by, directory)).get(id)?.text.length;
  const { Store } = await import("../../src/data/index.ts");
  const store = await Store.open(directory, { readOnly: true });
  return await store.whenLoaded(() => {
    const row = store.map("ids").get(id)!;
    const table = store.table("documents");
    return (table.get(new DataView(row.buffer).getUint32(0, true))["text"] as Uint8Array).length;
  });
}

const length = await find();
console.log(performance.timeOrigin + performance.now(), length);
process.exit(0);
