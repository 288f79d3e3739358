/**
 * A program that restores stamped pages in the background and reports it, to be disturbed from
 * outside: DIRECTORY PAGES QUEUE. It waits for each 2 MiB, tries failed pages again, and checks
 * every stamp.
 */
import { FileRange, HUGE_PAGE_SIZE, MemoryFile, PAGE_SIZE } from "../../../src/index.ts";
import { pageWords, stampOf } from "./stamped.ts";

const [directory, pagesText, queue] = process.argv.slice(2) as [
  string,
  string,
  "workers" | "inline" | "auto",
];
const pages = Number(pagesText);
using file = await MemoryFile.loadFrom(directory, { background: true, queue });
const ranges: FileRange[] = [];
for (let start = 0; start < pages * PAGE_SIZE; start += HUGE_PAGE_SIZE) {
  ranges.push(new FileRange(start, Math.min(start + HUGE_PAGE_SIZE, pages * PAGE_SIZE)));
}
const settled = await Promise.allSettled(ranges.map((range) => file.awaitLoad(range)));
const codes = settled.flatMap((result) =>
  result.status === "rejected" ? [(result.reason as { code: string }).code] : [],
);
// An attempt may use only one of the faults that a thread has before it.
for (let attempt = 0; attempt < 2000 && file.loadStats().error !== null; attempt++) {
  await file.retryLoad().catch((error: { code: string }) => codes.push(error.code));
}
let wrong = 0;
for (let page = 0; page < pages; page++) if (stampOf(pageWords(file, page), page) !== 1) wrong++;
console.log(JSON.stringify({ failed: codes.length, codes: [...new Set(codes)], wrong }));
