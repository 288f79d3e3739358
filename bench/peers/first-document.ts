/**
 * Opens documents that another process stored, gets one, and prints the milliseconds since the
 * start of this process.
 */
import { openDocuments } from "./documents.ts";
import { Store } from "../../src/data/index.ts";

const [by, directory, id] = process.argv.slice(2) as [string, string, string];
let length: number | undefined;
if (by === "pgalloc") {
  const store = await Store.open(directory, { readOnly: true });
  length = await store.whenLoaded(() => {
    const row = store.map("ids").get(id)!;
    const table = store.table("documents");
    return (table.get(new DataView(row.buffer).getUint32(0, true))["text"] as Uint8Array).length;
  });
} else length = (await openDocuments(by, directory)).get(id)?.text.length;
console.log(performance.now(), length);
process.exit(0);
