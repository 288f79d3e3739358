/**
 * Loads a checkpoint of records with a cold page cache: compressed in frames, and raw. Compressed
 * contents take less of the disk's time and more of the processors'. Both are loaded in turns. The
 * hash covers all loaded contents.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { Compression } from "../src/codec/codec.ts";
import { MemoryFile, PAGE_SIZE } from "../src/index.ts";
import { type Bench, main, number, OURS, type Params, type Run, text } from "./support/bench.ts";
import { formatHash } from "./support/image.ts";
import { prepareCache } from "./support/page-cache.ts";

const RAW = "raw frames";
const GIB = 2 ** 30;
const PIECE_BYTES = 2 ** 26;
const RECORD_WORDS = 32;

export const bench: Bench = {
  subject: "frames",
  title: "Cold load of compressible records",
  cases: ({ bytes }) => ["lz4", "zstd"].map((compression) => ({ compression, bytes: bytes / 2 })),
  rivals: () => [RAW],
  measure: sample,
};

/** Records of 128 bytes: a key, a time, a few small numbers, a name, a price. */
function fillRecords(words: Uint32Array, firstRecord: number): void {
  for (let at = 0, record = firstRecord; at < words.length; at += RECORD_WORDS, record++) {
    const mixed = Math.imul(record + 1, 0x9e3779b1) >>> 0;
    words[at] = record;
    words[at + 2] = 1_700_000_000 + record * 3;
    words[at + 4] = mixed % 97;
    words[at + 5] = mixed % 11;
    for (let i = 8; i < 16; i++) words[at + i] = 0x61616161 + (mixed % 23) * 0x01010101;
    words[at + 20] = mixed & 0xffff;
    words[at + 21] = (mixed >>> 16) & 0xff;
  }
}

async function saveRecords(
  directory: string,
  bytes: number,
  compression: Compression,
): Promise<void> {
  using file = MemoryFile.create();
  const range = file.allocate(bytes);
  for (let start = range.start; start < range.end; start += PIECE_BYTES) {
    const end = Math.min(range.end, start + PIECE_BYTES);
    fillRecords(file.view({ start, end }, Uint32Array), start / (4 * RECORD_WORDS));
  }
  await file.saveTo(directory, { compression });
}

async function sample(params: Params, run: Run) {
  const bytes = Math.ceil(number(params, "bytes") / PAGE_SIZE) * PAGE_SIZE;
  const compression = run.by === OURS ? (text(params, "compression") as Compression) : "none";
  const directory = join(run.directory, `records-${compression}-${bytes}`);
  if (!existsSync(join(directory, "meta"))) await saveRecords(directory, bytes, compression);
  let storedBytes = 0;
  for (const name of readdirSync(directory)) {
    prepareCache(join(directory, name), "cold");
    storedBytes += Bun.file(join(directory, name)).size;
  }
  Bun.gc(true);
  const cpu = process.cpuUsage();
  const startedMs = performance.now();
  using file = await MemoryFile.loadFrom(directory);
  const seconds = (performance.now() - startedMs) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  let crc = 0;
  for (let start = 0; start < bytes; start += PIECE_BYTES)
    crc = Bun.hash.crc32(file.view({ start, end: Math.min(bytes, start + PIECE_BYTES) }), crc);
  return {
    figures: {
      allLoadedSeconds: seconds,
      gibPerSecond: bytes / GIB / seconds,
      cpuSeconds: (user + system) / 1e6,
      storedRatio: bytes / storedBytes,
    },
    hash: formatHash(crc, bytes),
  };
}

if (import.meta.main) await main(bench);
