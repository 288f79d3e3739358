/**
 * The limit of Bun's one HTTP thread for a process, beside connections of each thread: `bun
 * bench/http-threads.ts URL [ROUNDS]` reads the first GiB at URL by ranges of 2 MiB, 32 at once, in
 * 1, 2 and 4 Workers. The server must answer ranges, such as nginx with a file on this machine.
 */
import { readdirSync, readFileSync } from "node:fs";
import { parentPort } from "node:worker_threads";
import { Client } from "../src/http/client.ts";
import { getRange } from "../src/http/range.ts";
import { median } from "./support/statistics.ts";

const BYTES = 2 ** 30;
const RANGE_BYTES = 2 ** 21;
const AT_ONCE = 32;
const WORKERS = [1, 2, 4];
const TICKS_PER_SECOND = 100;

type Way = "fetch" | "connections";

interface Work {
  readonly way: Way;
  readonly url: string;
  readonly start: number;
  readonly end: number;
  readonly atOnce: number;
}

/** Reads a range into `into`, which both ways fill from pieces of their own. */
const READ: Record<Way, (url: string, start: number, into: Uint8Array) => Promise<unknown>> = {
  async fetch(url, start, into) {
    const range = `bytes=${start}-${start + RANGE_BYTES - 1}`;
    const response = await fetch(url, { headers: { range } });
    into.set(new Uint8Array(await response.arrayBuffer()));
  },
  connections: (url, start, into) =>
    getRange(client, { url, start, end: start + RANGE_BYTES }, (piece, at) => into.set(piece, at)),
};
const client = new Client();

async function readAll({ way, url, start, end, atOnce }: Work): Promise<void> {
  let next = start;
  const readSome = async (): Promise<void> => {
    const into = new Uint8Array(RANGE_BYTES);
    for (let at = next; at < end; at = next) {
      next += RANGE_BYTES;
      await READ[way](url, at, into);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, readSome));
}

/** Seconds of a processor that threads of this name have used. */
function threadSeconds(name: string): number {
  return readdirSync("/proc/self/task").reduce((sum, thread) => {
    const stat = readFileSync(`/proc/self/task/${thread}/stat`, "utf8");
    if (!stat.includes(`(${name})`)) return sum;
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return sum + (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  }, 0);
}

/** Resolves with the next message of a Worker. */
function answerOf(worker: Worker): Promise<unknown> {
  return new Promise((resolve, reject) => {
    worker.addEventListener("message", resolve, { once: true });
    worker.addEventListener("error", reject, { once: true });
  });
}

async function measure(way: Way, url: string, count: number) {
  const workers = Array.from({ length: count }, () => new Worker(import.meta.path));
  await Promise.all(workers.map(answerOf));
  const cpu = process.cpuUsage();
  const httpSeconds = threadSeconds("HTTP Client");
  const beganMs = performance.now();
  const share = BYTES / count;
  await Promise.all(
    workers.map((worker, i) => {
      const work = { start: i * share, end: (i + 1) * share, atOnce: AT_ONCE / count };
      worker.postMessage({ way, url, ...work } satisfies Work);
      return answerOf(worker);
    }),
  );
  const seconds = (performance.now() - beganMs) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  for (const worker of workers) worker.terminate();
  const httpThread = threadSeconds("HTTP Client") - httpSeconds;
  return { gibPerSecond: 1 / seconds, cpuSeconds: (user + system) / 1e6, httpThread };
}

async function main(url: string, rounds: number): Promise<void> {
  const samples = new Map<string, Awaited<ReturnType<typeof measure>>[]>();
  for (let round = 0; round < rounds; round++)
    for (const count of WORKERS)
      for (const way of ["fetch", "connections"] as const) {
        const name = `${way} in ${count} Workers`;
        samples.set(name, [...(samples.get(name) ?? []), await measure(way, url, count)]);
      }
  for (const [name, some] of samples) {
    const of = (figure: keyof (typeof some)[number]) =>
      median(some.map((sample) => sample[figure])).toFixed(2);
    console.log(
      `${name}: ${of("gibPerSecond")} GiB/s, ${of("cpuSeconds")} s of a processor, of which ` +
        `${of("httpThread")} s in the HTTP thread`,
    );
  }
  process.exit(0);
}

if (parentPort === null) {
  const [url, rounds = "5"] = process.argv.slice(2);
  if (url === undefined) throw new TypeError("Expected the URL of a file of 1 GiB or more");
  await main(url, Number(rounds));
} else {
  const port = parentPort;
  port.on("message", async (work: Work) => {
    await readAll(work);
    port.postMessage("read");
  });
  port.postMessage("ready");
}
