/** Reads all of an index: `bun reader.ts DIRECTORY copied|mapped ENTRIES`. */
import { MemoryFile } from "pgalloc";
import { entryOf, readEntry } from "../shared-image/index-file.ts";

const [directory, how, entries] = process.argv.slice(2) as [string, string, string];
using file = await MemoryFile.loadFrom(directory, { mapped: how === "mapped" });
const STEP = 16;
for (let entry = 0; entry < Number(entries); entry += STEP) {
  if (readEntry(file, entry) !== entryOf(entry)) throw new Error(`Entry ${entry} is wrong`);
}
const { cleanMappedBytes } = file.usage();
console.log(`${Math.round(cleanMappedBytes / 2 ** 20)} MiB are mapped at the end`);
