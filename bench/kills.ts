/**
 * Kills saves at random moments: `bun bench/kills.ts [--kills 200]`. In each round a process saves
 * over the last checkpoint and is killed by SIGKILL between the start of the save and shortly after
 * its usual end. Then the directory must hold the previous checkpoint or the new one, with every
 * page's stamp.
 */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { checkStamped, saveStamped, stampedFile } from "../test/safety/support/stamped.ts";

const PAGES = 4096;
const VERSIONS = 250;

/** The process that is killed: it fills memory, reports that, and saves. */
async function child(directory: string, version: number): Promise<void> {
  using file = stampedFile(PAGES, version);
  console.log("saving");
  const startedMs = performance.now();
  await file.saveTo(directory, { userData: new Uint8Array([version]) });
  console.log(`saved ${performance.now() - startedMs}`);
}

interface Round {
  readonly killed: boolean;
  /** How long the save took, if it ended. */
  readonly tookMs: number | undefined;
}

async function runRound(directory: string, version: number, killAfterMs: number): Promise<Round> {
  const process_ = Bun.spawn(
    [process.execPath, import.meta.path, "--child", directory, "--version", String(version)],
    {
      stdout: "pipe",
      stderr: "inherit",
    },
  );
  let output = "";
  let timer: Timer | undefined;
  for await (const chunk of process_.stdout) {
    output += Buffer.from(chunk).toString();
    timer ??= setTimeout(() => process_.kill("SIGKILL"), killAfterMs);
  }
  await process_.exited;
  clearTimeout(timer);
  const saved = /saved ([\d.]+)/.exec(output)?.[1];
  return {
    killed: process_.signalCode === "SIGKILL",
    tookMs: saved === undefined ? undefined : Number(saved),
  };
}

async function main(kills: number): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), "pgalloc-kills-"));
  const directory = join(root, "checkpoint");
  const counts = { rounds: 0, killed: 0, previous: 0, next: 0 };
  try {
    await saveStamped(directory, PAGES, 0);
    let usualMs = (await runRound(directory, 1, 60_000)).tookMs ?? 100;
    let current = 1;
    while (counts.killed < kills) {
      const version = (current + 1) % VERSIONS;
      const { killed, tookMs } = await runRound(directory, version, Math.random() * 1.2 * usualMs);
      if (tookMs !== undefined) usualMs = (3 * usualMs + tookMs) / 4;
      const found = await checkStamped(directory, PAGES);
      if (found !== current && found !== version)
        throw new Error(`Found version ${found}, expected ${current} or ${version}`);
      if (!killed && found !== version)
        throw new Error(`The save of version ${version} ended well, and ${found} is there`);
      counts.rounds++;
      if (killed) counts.killed++;
      if (killed && found === version) counts.next++;
      if (killed && found === current) counts.previous++;
      current = found;
    }
    await saveStamped(directory, PAGES, 0);
    const left = readdirSync(directory);
    console.log(
      `${counts.rounds} saves of ${PAGES} pages, ${counts.killed} of them killed: ` +
        `${counts.previous} left the previous checkpoint, ` +
        `${counts.next} the new one, every page checked; ${left.length} files in the directory ` +
        "after one more save",
    );
  } finally {
    rmSync(root, { recursive: true });
  }
}

const { values } = parseArgs({
  options: {
    kills: { type: "string", default: "200" },
    child: { type: "string" },
    version: { type: "string", default: "0" },
  },
});
if (values.child === undefined) await main(Number(values.kills));
else await child(values.child, Number(values.version));
