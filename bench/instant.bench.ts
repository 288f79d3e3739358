/**
 * Saving over a checkpoint after a part of the pages was written: its duration, the bytes that it
 * writes, and how long the program is stopped; then the same while the program continues to write.
 * Rivals: comparing hashes (as if the kernel forbids userfaultfd), writing everything, and Redis.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { MADV_COLLAPSE, MADV_POPULATE_WRITE, resetTrackingProbe, tryAdvise } from "../ffi/index.ts";
import { coreOf } from "../src/file/memory-file.ts";
import { HUGE_PAGE_SIZE, MemoryFile, PAGE_SIZE, type SaveReport } from "../src/index.ts";
import { hasRedis, measureRedis, REDIS } from "./peers/redis.ts";
import {
  type Bench,
  main,
  number,
  type Params,
  type Run,
  type Sample,
  text,
} from "./support/bench.ts";
import { median } from "./support/statistics.ts";
import { Random } from "./support/trace.ts";

const HASHES = "hashes";
const FULL = "full save";
const SEED = 18;
const WORDS_PER_PAGE = PAGE_SIZE / 4;
const REDIS_BYTES_MIN = 2 ** 28;
/**
 * The part of the pages that the program writes in each second of a save, in its turns of the event
 * loop.
 */
const BUSY_SHARE = 0.01;
const TURN_MS = 5;
/** More than there are page files at most. */
const LATER_SAVES = 12;

export const bench: Bench = {
  subject: "instant",
  title: "saving what changed, at one instant",
  cases: ({ bytes, isSmoke }) => {
    const one = { bytes, changed: 0.01, placed: "random", pages: "small" };
    if (isSmoke) return [one, { ...one, placed: "clustered", pages: "huge" }];
    return [
      { ...one, bytes: bytes / 8 },
      { ...one, changed: 0.001 },
      one,
      { ...one, changed: 0.1 },
      { ...one, placed: "clustered" },
      { ...one, pages: "huge" },
      { ...one, placed: "clustered", pages: "huge" },
    ];
  },
  rivals: ({ changed, bytes, pages, placed }) => [
    HASHES,
    FULL,
    ...(changed === 0.01 && pages === "small" && placed === "random" && canRedis(Number(bytes))
      ? [REDIS]
      : []),
  ],
  measure: sample,
  // It has no incremental saves, so that its only save counts. Its program stops meanwhile.
  gvisor: {
    arguments: ({ bytes }, run) => [
      ...["mkimage", "-dir", join(run.directory, `gvisor-instant-${bytes}`)],
      ...["-bytes", `${bytes}`, "-pattern", "dense"],
    ],
  },
  scratch: (directory, { bytes }) => join(directory, `gvisor-instant-${bytes}`),
};

const canRedis = (bytes: number): boolean => bytes >= REDIS_BYTES_MIN && hasRedis();

async function sample(params: Params, run: Run): Promise<Sample> {
  const bytes = number(params, "bytes");
  const directory = mkdtempSync(join(run.directory, "instant-"));
  try {
    if (run.by !== REDIS) return await measureOurs(params, run, directory);
    const { saveSeconds, pauseSeconds, writtenBytes } = await measureRedis(directory, bytes);
    return { figures: { saveSeconds, pauseSeconds, writtenBytes }, hash: null };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function measureOurs(params: Params, run: Run, directory: string): Promise<Sample> {
  const bytes = number(params, "bytes");
  if (run.by === HASHES)
    resetTrackingProbe({ syscall: "userfaultfd", code: "EPERM", reason: "this bench's rival" });
  const incremental = run.by !== FULL;
  using file = MemoryFile.create();
  const memory = new Memory(file, bytes, text(params, "pages") === "huge");
  const save = async () => {
    const began = performance.now();
    const report = await file.saveTo(directory, { incremental });
    return { report, seconds: (performance.now() - began) / 1000 };
  };
  const full = await save();
  const written = memory.draw(number(params, "changed"), text(params, "placed") === "clustered");
  const writeNs = (1e9 * memory.writeAll(written)) / written.length;
  const { report, seconds } = await save();
  const hash = await memory.hashSaved(directory);
  const stop = memory.keepWriting();
  const busy = await save();
  stop();
  const later = incremental ? await saveOften(memory, params, run, save) : {};
  const figures = {
    fullSaveSeconds: full.seconds,
    saveSeconds: seconds,
    saveAndSyncSeconds: seconds,
    pauseSeconds: report.pauseMs / 1000,
    writtenBytes: report.writtenBytes + report.metaBytes,
    metaBytes: report.metaBytes,
    writeNs,
    busySaveSeconds: busy.seconds,
    busyPauseSeconds: busy.report.pauseMs / 1000,
    busyRounds: roundsOf(busy.report),
    ...later,
  };
  return { figures, hash };
}

/** Saves repeatedly, each time after as many writes. */
async function saveOften(
  memory: Memory,
  params: Params,
  { isSmoke }: Run,
  save: () => Promise<{ report: SaveReport; seconds: number }>,
) {
  const saves: { report: SaveReport; seconds: number }[] = [];
  for (let i = 0; i < (isSmoke ? 1 : LATER_SAVES); i++) {
    const isClustered = text(params, "placed") === "clustered";
    memory.writeAll(memory.draw(number(params, "changed"), isClustered));
    saves.push(await save());
  }
  const bytes = saves.map(({ report }) => report.writtenBytes + report.metaBytes);
  return {
    laterSaveSeconds: median(saves.map(({ seconds }) => seconds)),
    laterWrittenBytes: bytes.reduce((sum, count) => sum + count, 0) / bytes.length,
  };
}

const roundsOf = ({ rounds }: SaveReport): number => rounds.length;

/** A file's memory: no page is zero. */
class Memory {
  private readonly words: Uint32Array[];
  private readonly wordsPerView: number;
  private readonly file: MemoryFile;
  private readonly pages: number;
  private readonly random = new Random(SEED);
  private value = 1;

  constructor(file: MemoryFile, bytes: number, isHuge: boolean) {
    this.file = file;
    this.pages = bytes / PAGE_SIZE;
    const range = file.allocate(bytes);
    if (isHuge) makeHuge(coreOf(file).mapping.base + range.start, bytes);
    this.words = file
      .views(range)
      .map(({ buffer, byteOffset, length }) => new Uint32Array(buffer, byteOffset, length / 4));
    this.wordsPerView = this.words[0]!.length;
    for (let page = 0; page < this.pages; page++) this.write(page);
  }

  private write(page: number): void {
    const word = page * WORDS_PER_PAGE;
    const view = this.words[Math.floor(word / this.wordsPerView)]!;
    view[(word % this.wordsPerView) + (this.value % WORDS_PER_PAGE)] = page ^ this.value;
  }

  /** Distinct pages, ascending: one run, or anywhere. */
  draw(share: number, isClustered: boolean): Uint32Array {
    const count = Math.max(1, Math.round(share * this.pages));
    const first = this.random.below(this.pages - count + 1);
    if (isClustered) return Uint32Array.from({ length: count }, (_, i) => first + i);
    const drawn = new Set<number>();
    while (drawn.size < count) drawn.add(this.random.below(this.pages));
    return Uint32Array.from(drawn).sort();
  }

  /** Writes a word to each page. Returns seconds. */
  writeAll(pages: Uint32Array): number {
    this.value++;
    const began = performance.now();
    for (const page of pages) this.write(page);
    return (performance.now() - began) / 1000;
  }

  /** Writes BUSY_SHARE of the pages in each second, until the returned function is called. */
  keepWriting(): () => void {
    let wroteMs = performance.now();
    const timer = setInterval(() => {
      const now = performance.now();
      const count = Math.round((this.pages * BUSY_SHARE * (now - wroteMs)) / 1000);
      wroteMs = now;
      this.value++;
      for (let i = 0; i < count; i++) this.write(this.random.below(this.pages));
    }, TURN_MS);
    return () => clearInterval(timer);
  }

  /** CRC-32 of the checkpoint's contents. Throws unless they equal the memory. */
  async hashSaved(directory: string): Promise<string> {
    using back = await MemoryFile.loadFrom(directory);
    const range = { start: 0, end: this.pages * PAGE_SIZE };
    const mine = this.file.views(range);
    let crc = 0;
    for (const [i, view] of back.views(range).entries()) {
      if (Buffer.compare(view, mine[i]!) !== 0) throw new Error("The checkpoint is not the memory");
      crc = Bun.hash.crc32(view, crc);
    }
    return crc.toString(16).padStart(8, "0");
  }
}

function makeHuge(address: number, bytes: number): void {
  for (let offset = 0; offset < bytes; offset += HUGE_PAGE_SIZE) {
    tryAdvise(address + offset, PAGE_SIZE, MADV_POPULATE_WRITE);
    tryAdvise(address + offset, HUGE_PAGE_SIZE, MADV_COLLAPSE);
  }
}

if (import.meta.main) await main(bench);
