/**
 * Restores from S3 with 30 ms of latency before each answer.
 *
 * - `start`: the first answer of a program that needs 1 % of the image, in 16 places. The rivals
 *   download the checkpoint first, as a container does today: with Bun's client, and with s5cmd and
 *   the AWS CLI where they are installed.
 * - `throughput`: all of it, undisturbed. The rival reads the same bytes by as many plain ranged
 *   GETs at once, and neither checks nor places them.
 * - `demand`: single pages are awaited while all of it loads. The rivals get the block of such a
 *   page by a plain ranged GET, beside as many plain GETs of the image, and beside nothing.
 *
 * The server is a process on the same machine, so it takes part of the processors from all
 * (support/s3-servers.ts).
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
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
import { KEYS, SERVERS, type Save } from "./support/s3-servers.ts";
import { percentile } from "./support/statistics.ts";
import { Random } from "./support/trace.ts";

const LATENCY_MS = 30;
const PLACES = 16;
const AWAIT_EVERY_MS = 20;
const PLAIN_BYTES = 2 ** 21;
const PLAIN_AT_ONCE = 32;
const GIB = 2 ** 30;
const PLAIN = "plain ranged GETs";
const QUIET = "plain ranged GETs, no load";
const DOWNLOAD = "download, then start";
/** What a load reads for one page. */
const BLOCK_BYTES = 2 ** 17;
const QUIET_AWAITS = 200;

export const bench: Bench = {
  subject: "remote",
  title: `loadFrom S3, ${LATENCY_MS} ms of latency`,
  cases: ({ bytes }) =>
    Object.keys(SERVERS).flatMap((server) =>
      ["start", "throughput", "demand"].map((work) => ({ work, server, bytes })),
    ),
  rivals: ({ work, bytes }) => {
    if (work === "demand") return [PLAIN, QUIET];
    const tools = Object.keys(TOOLS).filter((by) => isUsed(by, Number(bytes)));
    return work === "start" ? [DOWNLOAD, ...tools] : [PLAIN, DOWNLOAD, ...tools];
  },
  scratch: imageOf,
  measure: sample,
};

/** Commands that download the checkpoint of an endpoint into a directory. */
const TOOLS: Readonly<Record<string, (endpoint: string, directory: string) => string[]>> = {
  "s5cmd, then start": (endpoint, directory) => [
    "s5cmd",
    "--endpoint-url",
    endpoint,
    "cp",
    "s3://bucket/image/*",
    `${directory}/`,
  ],
  "AWS CLI, then start": (endpoint, directory) =>
    ["aws", "--endpoint-url", endpoint, "s3", "cp", "--recursive", "--only-show-errors"].concat(
      "s3://bucket/image",
      directory,
    ),
};

/** Their own start takes longer than all of a small image. */
function isUsed(by: string, bytes: number): boolean {
  return bytes >= 2 ** 26 && Bun.which(TOOLS[by]!("", "")[0]!) !== null;
}

function imageOf(directory: string, { bytes, server }: Params): string {
  return join(directory, `remote-${server}-${bytes}`);
}

async function sample(params: Params, run: Run): Promise<Sample> {
  const bytes = number(params, "bytes");
  const save: Save = async (where, s3) => {
    using file = MemoryFile.create({ name: "bench" });
    fillImage(file, "dense", bytes);
    await file.saveTo(where, { s3, compression: "none" });
  };
  const directory = imageOf(run.directory, params);
  mkdirSync(directory, { recursive: true });
  const options = { directory, latencyMs: LATENCY_MS };
  const server = await SERVERS[text(params, "server")]!(options, save);
  try {
    return await WORK[text(params, "work")]!({ ...server, bytes, run });
  } finally {
    await server.stop();
  }
}

interface Job {
  readonly endpoint: string;
  readonly pagesKey: string;
  readonly bytes: number;
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
  if (run.by !== OURS) await download(run.by, endpoint, directory);
  const file =
    run.by === OURS
      ? await load(endpoint)
      : await MemoryFile.loadFrom(directory, { background: true });
  const loadFromReturnsSeconds = (performance.now() - beganMs) / 1000;
  const crc = await awaitPart(file, bytes);
  const seconds = (performance.now() - beganMs) / 1000;
  const readFraction = run.by === OURS ? file.loadStats().loadedBytes / bytes : 1;
  file.destroy();
  rmSync(directory, { recursive: true });
  return {
    figures: { firstAnswerSeconds: seconds, loadFromReturnsSeconds, readFraction },
    hash: formatHash(crc, bytes),
  };
}

async function measureThroughput({ endpoint, pagesKey, bytes, run }: Job): Promise<Sample> {
  const cpu = process.cpuUsage();
  const beganMs = performance.now();
  const stop = () => {
    const seconds = (performance.now() - beganMs) / 1000;
    const { user, system } = process.cpuUsage(cpu);
    const cpuSeconds = (user + system) / 1e6;
    return { allLoadedSeconds: seconds, gibPerSecond: bytes / GIB / seconds, cpuSeconds };
  };
  if (run.by === PLAIN) {
    const crc = await readPlainly(signed(`${endpoint}/bucket/${pagesKey}`), bytes);
    return { figures: stop(), hash: formatHash(crc, bytes) };
  }
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-bench-"));
  if (run.by !== OURS) await download(run.by, endpoint, directory);
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

async function measureDemand(job: Job): Promise<Sample> {
  if (job.run.by !== OURS) return measurePlainDemand(job);
  const { endpoint, bytes, run } = job;
  const beganMs = performance.now();
  using file = await load(endpoint);
  const all = file.awaitLoad();
  const times = await awaitAtRandom(
    run.seed,
    bytes,
    () => file.isLoading,
    (page) => {
      const range = { start: page * PAGE_SIZE, end: (page + 1) * PAGE_SIZE };
      return file.isLoaded(range) ? undefined : file.awaitLoad(range);
    },
  );
  await all;
  const allLoadedSeconds = (performance.now() - beganMs) / 1000;
  return {
    figures: { ...figuresOf(times), allLoadedSeconds },
    hash: hashImage(file, "dense", bytes),
  };
}

async function measurePlainDemand({ endpoint, pagesKey, bytes, run }: Job): Promise<Sample> {
  const url = signed(`${endpoint}/bucket/${pagesKey}`);
  const beganMs = performance.now();
  let isLoading = true;
  const all = run.by === QUIET ? undefined : readPlainly(url, bytes);
  void all?.finally(() => (isLoading = false));
  let left = run.isSmoke ? 2 : QUIET_AWAITS;
  const goesOn = () => (all === undefined ? left-- > 0 : isLoading);
  const times = await awaitAtRandom(run.seed, bytes, goesOn, async (page) => {
    const start = Math.floor((page * PAGE_SIZE) / BLOCK_BYTES) * BLOCK_BYTES;
    await getPlainly(url, start, Math.min(bytes, start + BLOCK_BYTES));
  });
  await all;
  const allLoadedSeconds = (performance.now() - beganMs) / 1000;
  const figures = { ...figuresOf(times), ...(all === undefined ? {} : { allLoadedSeconds }) };
  const crc = await (all ?? readPlainly(url, bytes));
  return { figures, hash: formatHash(crc, bytes) };
}

/** Calls `get` for a random page every AWAIT_EVERY_MS. Returns how long each took, in ms. */
async function awaitAtRandom(
  seed: number,
  bytes: number,
  goesOn: () => boolean,
  get: (page: number) => Promise<void> | undefined,
): Promise<number[]> {
  const random = new Random(seed);
  const times: number[] = [];
  const awaits: Promise<unknown>[] = [];
  while (goesOn()) {
    const beganMs = performance.now();
    const waiting = get(random.below(bytes / PAGE_SIZE));
    if (waiting !== undefined)
      awaits.push(waiting.then(() => times.push(performance.now() - beganMs)));
    await Bun.sleep(AWAIT_EVERY_MS);
  }
  await Promise.all(awaits);
  return times;
}

function figuresOf(times: readonly number[]) {
  const ns = times.map((ms) => ms * 1e6);
  return {
    awaits: times.length,
    awaitP50Ns: percentile(ns, 0.5),
    awaitP99Ns: percentile(ns, 0.99),
    awaitP99OfLatency: percentile(ns, 0.99) / 1e6 / LATENCY_MS,
  };
}

/** The checkpoint's files as a directory, by Bun's client or another program. */
async function download(by: string, endpoint: string, directory: string): Promise<void> {
  if (by === DOWNLOAD) await downloadWithBun(endpoint, directory);
  else await downloadWithTool(TOOLS[by]!(endpoint, directory));
  const manifests = join(directory, "manifest");
  if (!existsSync(manifests)) return;
  const newest = readdirSync(manifests).sort()[0]!;
  renameSync(join(manifests, newest), join(directory, "meta"));
}

async function downloadWithBun(endpoint: string, directory: string): Promise<void> {
  const client = new Bun.S3Client({ endpoint, bucket: "bucket", ...KEYS });
  const listed = await client.list({ prefix: "image/" });
  for (const { key } of listed.contents ?? [])
    await Bun.write(join(directory, key.replace(/^image\//, "")), client.file(key));
}

async function downloadWithTool(command: string[]): Promise<void> {
  const { accessKeyId, secretAccessKey, region } = KEYS;
  const keys = { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey };
  const env = { ...process.env, ...keys, AWS_REGION: region };
  const exitCode = await Bun.spawn(command, { env, stdout: "ignore", stderr: "inherit" }).exited;
  if (exitCode !== 0) throw new Error(`${command[0]} ended with ${exitCode}`);
}

/** The address of an object with a signature in its query. */
function signed(url: string): string {
  const { origin, pathname } = new URL(url);
  const client = new Bun.S3Client({ endpoint: origin, bucket: "bucket", ...KEYS });
  return client.presign(pathname.replace("/bucket/", ""));
}

async function getPlainly(url: string, start: number, end: number): Promise<Uint8Array> {
  const response = await fetch(url, { headers: { range: `bytes=${start}-${end - 1}` } });
  if (response.status !== 206) throw new Error(`A range was answered with ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

/** Reads the page file by GETs of equal size; returns the CRC-32 of its contents. */
async function readPlainly(url: string, bytes: number): Promise<number> {
  const pieces: Uint8Array[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    for (let start = next; start < bytes; start = next) {
      next += PLAIN_BYTES;
      pieces[start / PLAIN_BYTES] = await getPlainly(url, start, Math.min(bytes, next));
    }
  };
  await Promise.all(Array.from({ length: PLAIN_AT_ONCE }, work));
  return pieces.reduce((crc, piece) => Bun.hash.crc32(piece, crc), 0);
}

if (import.meta.main) await main(bench);
