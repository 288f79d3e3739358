/**
 * Restores an image by mapping its page files: checked (`verify`) or not, with a hot or cold page
 * cache. In the same rounds it is copied, loaded by gVisor, and mapped by Bun.mmap, which neither
 * checks pages nor lets a program write them without changing the file. `--bytes` sets the size.
 *
 * After the load it reads all of the image once, and writes to single pages. Both are slower than
 * in copied memory, which is in huge pages. The hash covers all loaded contents.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { type LoadOptions, MemoryFile, PAGE_SIZE } from "../src/index.ts";
import { type Bench, main, number, OURS, type Params, type Run, text } from "./support/bench.ts";
import { fillImage, formatHash, hashImage, pageFileIn } from "./support/image.ts";
import { type CacheState, prepareCache } from "./support/page-cache.ts";
import { filledBytes, type Pattern } from "./support/trace.ts";
import { gvisorArguments } from "./load.bench.ts";
import { bench as save, peerImage } from "./save.bench.ts";

const COPIED = "copied";
const MMAP = "Bun.mmap, touched";
/** Bun.mmap maps less than this. */
const MMAP_BYTES_MAX = 2 ** 32;
const GIB = 2 ** 30;
const PIECE_BYTES = 2 ** 26;
const WRITES = 1000;

export const bench: Bench = {
  subject: "mapped",
  title: "loadFrom with mapped page files",
  built: "all",
  cases: ({ bytes, isSmoke }) => {
    const all = ["dense", "fragmented"].flatMap((pattern) => [
      { pattern, bytes, cache: "hot", verify: "yes" },
      { pattern, bytes: bytes / 8, cache: "hot", verify: "yes" },
      { pattern, bytes, cache: "hot", verify: "no" },
      { pattern, bytes, cache: "cold", verify: "yes" },
    ]);
    return isSmoke ? [all[0]!, all.at(-1)!] : all;
  },
  rivals: ({ pattern, bytes }) =>
    pattern === "dense" && Number(bytes) < MMAP_BYTES_MAX ? [COPIED, MMAP] : [COPIED],
  measure: sample,
  gvisor: {
    prepare: (params, run) => ({
      image: join(peerImage(run.directory, params), "pages.img"),
      arguments: save.gvisor!.arguments(params, run),
    }),
    arguments: (params, run) => gvisorArguments({ ...params, awaits: 0 }, run),
  },
};

async function sample(params: Params, run: Run) {
  const pattern = text(params, "pattern") as Pattern;
  const bytes = number(params, "bytes");
  const directory = join(run.directory, `mapped-${pattern}-${bytes}`);
  if (!existsSync(join(directory, "meta"))) {
    using file = MemoryFile.create();
    fillImage(file, pattern, bytes);
    await file.saveTo(directory);
  }
  for (const name of readdirSync(directory))
    prepareCache(join(directory, name), text(params, "cache") as CacheState);
  Bun.gc(true);
  if (run.by === MMAP) return touchByBun(pageFileIn(directory), filledBytes(pattern, bytes));
  const options: LoadOptions =
    run.by === OURS ? { mapped: true, verify: text(params, "verify") === "yes" } : {};
  return await restore(directory, options, { pattern, bytes });
}

async function restore(
  directory: string,
  options: LoadOptions,
  { pattern, bytes }: { readonly pattern: Pattern; readonly bytes: number },
) {
  const startedMs = performance.now();
  const seconds = () => (performance.now() - startedMs) / 1000;
  const cpu = process.cpuUsage();
  using file = await MemoryFile.loadFrom(directory, {
    ...options,
    background: true,
    workingSet: false,
  });
  const loadFromReturnsSeconds = seconds();
  const page = { start: bytes / 2, end: bytes / 2 + PAGE_SIZE };
  await file.awaitLoad(page);
  file.view(page)[0];
  const firstPageSeconds = seconds();
  await file.awaitLoad();
  const allLoadedSeconds = seconds();
  const { user, system } = process.cpuUsage(cpu);
  const { mappedBytes } = file.loadStats();
  const scanMs = performance.now();
  const hash = hashImage(file, pattern, bytes);
  const scanSeconds = (performance.now() - scanMs) / 1000;
  return {
    figures: {
      loadFromReturnsSeconds,
      firstPageSeconds,
      allLoadedSeconds,
      gibPerSecond: filledBytes(pattern, bytes) / GIB / allLoadedSeconds,
      cpuSeconds: (user + system) / 1e6,
      mappedBytes,
      scanSeconds,
      firstWriteNs: writePages(file, bytes),
    },
    hash,
  };
}

/** Nanoseconds of the first write to a page. */
function writePages(file: MemoryFile, bytes: number): number {
  const pages = bytes / PAGE_SIZE;
  const step = Math.max(4, 4 * Math.floor(pages / WRITES / 4));
  let writes = 0;
  const startedMs = performance.now();
  for (let page = 0; page < pages; page += step, writes++)
    file.view({ start: page * PAGE_SIZE, end: (page + 1) * PAGE_SIZE })[0] = 1;
  return ((performance.now() - startedMs) / writes) * 1e6;
}

function touchByBun(path: string, bytes: number) {
  const startedMs = performance.now();
  const mapped = Bun.mmap(path);
  const loadFromReturnsSeconds = (performance.now() - startedMs) / 1000;
  let sum = 0;
  for (let at = 0; at < bytes; at += PAGE_SIZE) sum += mapped[at]!;
  if (sum === 0) throw new Error("A stamped file reads as zeros");
  const allLoadedSeconds = (performance.now() - startedMs) / 1000;
  let crc = 0;
  const scanMs = performance.now();
  for (let start = 0; start < bytes; start += PIECE_BYTES)
    crc = Bun.hash.crc32(mapped.subarray(start, Math.min(bytes, start + PIECE_BYTES)), crc);
  return {
    figures: {
      loadFromReturnsSeconds,
      allLoadedSeconds,
      gibPerSecond: bytes / GIB / allLoadedSeconds,
      scanSeconds: (performance.now() - scanMs) / 1000,
    },
    hash: formatHash(crc, bytes),
  };
}

if (import.meta.main) await main(bench);
