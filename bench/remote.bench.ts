/**
 * Restores from S3 with 30 ms of latency before each answer.
 *
 * - `start`: the first answer of a program that needs 1 % of the image, in 16 places. The rival
 *   downloads the checkpoint with Bun's client first, as a container does today.
 * - `throughput`: all of it, undisturbed. The rival reads the same bytes by as many plain ranged
 *   GETs at once, and neither checks nor places them.
 * - `demand`: single pages are awaited while all of it loads.
 *
 * The server is a process on the same machine, so it takes part of the processors from all.
 */
import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryFile, PAGE_SIZE } from "../src/index.ts";
import {
  type Bench,
  main,
  number,
  OURS,
  type Params,
  type Run,
  type Sample,
  text,
} from "./support/bench.ts";
import { fillImage, formatHash, hashImage } from "./support/image.ts";
import { percentile } from "./support/statistics.ts";
import { Random } from "./support/trace.ts";

const LATENCY_MS = 30;
const PLACES = 16;
const AWAIT_EVERY_MS = 20;
const PLAIN_BYTES = 2 ** 21;
const PLAIN_AT_ONCE = 32;
const GIB = 2 ** 30;
const KEYS = { accessKeyId: "bench", secretAccessKey: "bench" };
const PLAIN = "plain ranged GETs";
const DOWNLOAD = "download, then start";

export const bench: Bench = {
  subject: "remote",
  title: `loadFrom S3, ${LATENCY_MS} ms of latency`,
  cases: ({ bytes }) => ["start", "throughput", "demand"].map((work) => ({ work, bytes })),
  rivals: ({ work }) =>
    work === "demand" ? [] : work === "start" ? [DOWNLOAD] : [PLAIN, DOWNLOAD],
  scratch: imageOf,
  measure: sample,
};

function imageOf(directory: string, { bytes }: Params): string {
  return join(directory, `remote-${bytes}`);
}

async function sample(params: Params, run: Run): Promise<Sample> {
  const bytes = number(params, "bytes");
  const image = imageOf(run.directory, params);
  await makeImage(image, bytes);
  const server = Bun.spawn(
    [
      process.execPath,
      join(import.meta.dir, "support/late-server-program.ts"),
      image,
      `${LATENCY_MS}`,
    ],
    { stdout: "pipe" },
  );
  try {
    const { value } = await server.stdout.getReader().read();
    const endpoint = `http://127.0.0.1:${new TextDecoder().decode(value).trim()}`;
    return await WORK[text(params, "work")]!({ endpoint, bytes, image, run });
  } finally {
    server.kill();
    await server.exited;
  }
}

async function makeImage(image: string, bytes: number): Promise<void> {
  if (statSync(image, { throwIfNoEntry: false }) !== undefined) return;
  using file = MemoryFile.create({ name: "bench" });
  fillImage(file, "dense", bytes);
  await file.saveTo(image);
}

interface Job {
  readonly endpoint: string;
  readonly bytes: number;
  readonly image: string;
  readonly run: Run;
}

const WORK: Record<string, (job: Job) => Promise<Sample>> = {
  start: measureStart,
  throughput: measureThroughput,
  demand: measureDemand,
};

function load(endpoint: string): Promise<MemoryFile> {
  const s3 = { endpoint, ...KEYS };
  return MemoryFile.loadFrom("s3://bucket/image", { s3, background: true });
}

/** Awaits 1 % of the image in several places at once. Returns the CRC-32 of it. */
async function awaitPart(file: MemoryFile, bytes: number): Promise<number> {
  const lengthBytes = Math.ceil(bytes / 100 / PLACES / PAGE_SIZE) * PAGE_SIZE;
  const ranges = Array.from({ length: PLACES }, (_, place) => {
    const start = Math.floor((bytes * place) / PLACES / PAGE_SIZE) * PAGE_SIZE;
    return { start, end: start + lengthBytes };
  });
  await Promise.all(ranges.map((range) => file.awaitLoad(range)));
  return ranges.reduce((crc, range) => Bun.hash.crc32(file.view(range), crc), 0);
}

async function measureStart({ endpoint, bytes, run }: Job): Promise<Sample> {
  const beganMs = performance.now();
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-bench-"));
  if (run.by === DOWNLOAD) await download(endpoint, directory);
  const file =
    run.by === DOWNLOAD
      ? await MemoryFile.loadFrom(directory, { background: true })
      : await load(endpoint);
  const loadFromReturnsSeconds = (performance.now() - beganMs) / 1000;
  const crc = await awaitPart(file, bytes);
  const seconds = (performance.now() - beganMs) / 1000;
  const readFraction = run.by === DOWNLOAD ? 1 : file.loadStats().loadedBytes / bytes;
  file.destroy();
  rmSync(directory, { recursive: true });
  return {
    figures: { firstAnswerSeconds: seconds, loadFromReturnsSeconds, readFraction },
    hash: formatHash(crc, bytes),
  };
}

async function measureThroughput({ endpoint, bytes, image, run }: Job): Promise<Sample> {
  const cpu = process.cpuUsage();
  const beganMs = performance.now();
  const stop = () => {
    const seconds = (performance.now() - beganMs) / 1000;
    const { user, system } = process.cpuUsage(cpu);
    const cpuSeconds = (user + system) / 1e6;
    return { allLoadedSeconds: seconds, gibPerSecond: bytes / GIB / seconds, cpuSeconds };
  };
  if (run.by === PLAIN) {
    const crc = await readPlainly(endpoint, image, bytes);
    return { figures: stop(), hash: formatHash(crc, bytes) };
  }
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-bench-"));
  if (run.by === DOWNLOAD) await download(endpoint, directory);
  using file = run.by === OURS ? await load(endpoint) : await MemoryFile.loadFrom(directory);
  await file.awaitLoad();
  const figures = stop();
  rmSync(directory, { recursive: true });
  const { readCalls, readsInFlightMax } = file.loadStats();
  return {
    figures: { ...figures, readCalls, readsInFlightMax },
    hash: hashImage(file, "dense", bytes),
  };
}

async function measureDemand({ endpoint, bytes, run }: Job): Promise<Sample> {
  using file = await load(endpoint);
  const random = new Random(run.seed);
  const all = file.awaitLoad();
  const times: number[] = [];
  const awaits: Promise<void>[] = [];
  while (file.isLoading) {
    const start = random.below(bytes / PAGE_SIZE) * PAGE_SIZE;
    if (!file.isLoaded({ start, end: start + PAGE_SIZE })) {
      const beganMs = performance.now();
      const waiting = file.awaitLoad({ start, end: start + PAGE_SIZE });
      awaits.push(waiting.then(() => void times.push(performance.now() - beganMs)));
    }
    await Bun.sleep(AWAIT_EVERY_MS);
  }
  await Promise.all([all, ...awaits]);
  const ns = times.map((ms) => ms * 1e6);
  return {
    figures: {
      awaits: times.length,
      awaitP50Ns: percentile(ns, 0.5),
      awaitP99Ns: percentile(ns, 0.99),
      awaitP99OfLatency: percentile(ns, 0.99) / 1e6 / LATENCY_MS,
    },
    hash: hashImage(file, "dense", bytes),
  };
}

/** The checkpoint's files as a directory, by Bun's client. */
async function download(endpoint: string, directory: string): Promise<void> {
  const client = new Bun.S3Client({ endpoint, bucket: "bucket", ...KEYS });
  const listed = await client.list({ prefix: "image/" });
  for (const { key } of listed.contents ?? []) {
    const name = key.includes("manifest/") ? "meta" : key.replace(/^image\//, "");
    await Bun.write(join(directory, name), client.file(key));
  }
}

/** Reads the page file by GETs of equal size; returns the CRC-32 of its contents. */
async function readPlainly(endpoint: string, image: string, bytes: number): Promise<number> {
  const name = readdirSync(image).find((one) => one.startsWith("pages-"))!;
  const url = `${endpoint}/bucket/image/${name}`;
  const pieces: Uint8Array[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    for (let start = next; start < bytes; start = next) {
      next += PLAIN_BYTES;
      const range = `bytes=${start}-${Math.min(bytes, next) - 1}`;
      const response = await fetch(url, { headers: { range } });
      pieces[start / PLAIN_BYTES] = new Uint8Array(await response.arrayBuffer());
    }
  };
  await Promise.all(Array.from({ length: PLAIN_AT_ONCE }, work));
  return pieces.reduce((crc, piece) => Bun.hash.crc32(piece, crc), 0);
}

if (import.meta.main) await main(bench);
