/** A program for mapped.test.ts: maps a checkpoint, writes to every page, saves over it in full. */
import { MemoryFile, PAGE_SIZE } from "../../../src/index.ts";

const [place] = process.argv.slice(2) as [string];
using file = await MemoryFile.loadFrom(place, { mapped: true });
const { totalBytes } = file.loadStats();
const words = file.view({ start: 0, end: totalBytes }, Uint32Array);
for (let at = 0; at < words.length; at += PAGE_SIZE / 4) words[at]!++;
await file.compact(place);
