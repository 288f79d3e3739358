/**
 * The program that bench/start.bench.ts starts: it restores an image, awaits one page, and reports
 * the times.
 */
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";

/** Every fourth page of a fragmented image is empty. This one is not. */
const PAGE = 1024;

const startedMs = performance.now();
const file = await MemoryFile.loadFrom(process.argv[2]!, { background: true });
const returnedMs = performance.now();
const page = { start: PAGE * PAGE_SIZE, end: (PAGE + 1) * PAGE_SIZE };
await file.awaitLoad(page);
const firstWord = file.view(page, Uint32Array)[0]!;
const firstMs = performance.now();
const loadFromReturnsSeconds = (returnedMs - startedMs) / 1000;
const line = { firstWord, loadFromReturnsSeconds, firstPageSeconds: (firstMs - startedMs) / 1000 };
process.stdout.write(`${JSON.stringify(line)}\n`);
await file.awaitLoad();
file.destroy();
