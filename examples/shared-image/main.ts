/**
 * Several server processes over one index, on one port.
 *
 *   bun main.ts [--processes 4] [--mib 256] [--requests 400]
 *
 * It saves an index, then starts the servers twice: once each copies the index into its memory,
 * once each maps the page files. It asks them for entries, and prints the memory of all together:
 * PSS counts a page that several processes share once.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { entryOf, fillIndex } from "./index-file.ts";

const MIB = 2 ** 20;
const { values } = parseArgs({
  options: {
    processes: { type: "string", default: "4" },
    mib: { type: "string", default: "256" },
    requests: { type: "string", default: "400" },
  },
});
const processCount = Number(values.processes);
const bytes = Number(values.mib) * MIB;
const requests = Number(values.requests);

const directory = mkdtempSync(join(tmpdir(), "pgalloc-shared-image-"));
try {
  await fillIndex(directory, bytes);
  console.log(`index               ${values.mib} MiB, ${processCount} processes on one port`);
  const bare = await measure("none");
  for (const how of ["copied", "mapped"] as const) {
    const pss = await measure(how);
    console.log(
      `${how}              ${mebibytes(pss)} MiB of PSS; without the index ${mebibytes(bare)} MiB`,
    );
  }
} finally {
  rmSync(directory, { recursive: true });
}

function mebibytes(count: number): number {
  return Math.round(count / MIB);
}

/** Starts the servers, asks them, and returns the sum of their PSS in bytes. */
async function measure(how: "none" | "copied" | "mapped"): Promise<number> {
  const port = await freePort();
  const servers = Array.from({ length: processCount }, () =>
    Bun.spawn([process.execPath, join(import.meta.dir, "server.ts"), directory, how, `${port}`], {
      stdout: "pipe",
      stderr: "inherit",
    }),
  );
  try {
    for (const { stdout } of servers) await stdout.getReader().read();
    if (how !== "none") await ask(port);
    return servers.reduce((sum, { pid }) => sum + pssOf(pid), 0);
  } finally {
    for (const server of servers) server.kill();
    await Promise.all(servers.map(({ exited }) => exited));
  }
}

async function freePort(): Promise<number> {
  const server = Bun.serve({ port: 0, fetch: () => new Response() });
  const { port } = server;
  await server.stop();
  return port!;
}

/** Asks for entries all over the index, and checks the answers. */
async function ask(port: number): Promise<void> {
  const processes = new Set<string>();
  for (let i = 0; i < requests; i++) {
    const entry = Math.floor((i * bytes) / requests / 64);
    const response = await fetch(`http://localhost:${port}/${entry}`, { keepalive: false });
    processes.add(response.headers.get("x-process")!);
    const answer = await response.text();
    if (answer !== entryOf(entry)) throw new Error(`Entry ${entry} is ${answer}`);
  }
  console.log(`answers             ${requests}, all right, from ${processes.size} processes`);
}

function pssOf(pid: number): number {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  return Number(/^Pss: +(\d+) kB/m.exec(rollup)![1]) * 1024;
}
