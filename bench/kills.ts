/**
 * Kills saves at random moments: `bun bench/kills.ts [--kills 200] [--incremental]`. In each round
 * a process saves over the last checkpoint and is killed by SIGKILL between the start of the save
 * and shortly after its usual end. Then the directory must hold the previous checkpoint or the new
 * one, with every page's stamp.
 *
 * With `--incremental` the process restores the last checkpoint, changes every eighth page and
 * saves, repeatedly until it is killed. So checkpoints have several page files, and saves
 * compact them. The directory must hold the last save that was reported, or the one after it.
 */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { MemoryFile } from "../src/index.ts";
import {
  checkStamped,
  pageWords,
  saveStamped,
  stampedFile,
  stampOf,
  stampPage,
} from "../test/safety/support/stamped.ts";

const PAGES = 4096;
const VERSIONS = 250;
const INCREMENTAL_PAGES = 1024;
/** Time for about ten saves of a part of them. */
const INCREMENTAL_MS = 500;

/** The process that is killed: it fills memory, reports that, and saves. */
async function child(directory: string, version: number): Promise<void> {
  using file = stampedFile(PAGES, version);
  console.log("saving");
  const startedMs = performance.now();
  await file.saveTo(directory, { userData: new Uint8Array([version]) });
  console.log(`saved ${performance.now() - startedMs}`);
}

/** True if save `version` changes the page. */
function isChangedBy(version: number, page: number): boolean {
  return (Math.imul(page ^ Math.imul(version, 0x9e3779b1), 0x85ebca6b) >>> 13) % 8 === 0;
}

/** The last save up to `version` that changed the page; the first one wrote all pages. */
function versionOf(page: number, version: number): number {
  for (let last = version; last > 0; last--) if (isChangedBy(last, page)) return last;
  return 0;
}

/** The process that is killed while it saves what it changed. */
async function incrementalChild(directory: string): Promise<void> {
  using file = await MemoryFile.loadFrom(directory);
  await file.awaitLoad();
  let version = decode(file.userData);
  console.log("saving");
  for (;;) {
    version++;
    for (let page = 0; page < INCREMENTAL_PAGES; page++)
      if (isChangedBy(version, page)) stampPage(pageWords(file, page), page, version);
    const userData = new Uint8Array(Uint32Array.of(version).buffer);
    const { pageFiles } = await file.saveTo(directory, { userData });
    console.log(`version ${version} ${pageFiles}`);
  }
}

function decode(userData: Uint8Array | null): number {
  return userData === null ? 0 : Buffer.from(userData).readUInt32LE();
}

/** The version of a checkpoint of such saves. Throws if a page is not of it. */
async function checkIncremental(directory: string): Promise<number> {
  using file = await MemoryFile.loadFrom(directory);
  await file.awaitLoad();
  const version = decode(file.userData);
  for (let page = 0; page < INCREMENTAL_PAGES; page++) {
    const found = stampOf(pageWords(file, page), page);
    const expected = versionOf(page, version);
    if (found !== expected)
      throw new Error(`Page ${page} of save ${version} is of ${found}, not of ${expected}`);
  }
  return version;
}

async function mainIncremental(kills: number): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), "pgalloc-kills-"));
  const directory = join(root, "checkpoint");
  const counts = { reported: 0, after: 0, mostPageFiles: 0 };
  try {
    {
      using file = stampedFile(INCREMENTAL_PAGES, 0);
      await file.saveTo(directory);
    }
    let current = 0;
    for (let kill = 0; kill < kills; kill++) {
      const command = [process.execPath, import.meta.path, "--incremental", "--child", directory];
      const output = await killLater(command, Math.random() * INCREMENTAL_MS);
      const reports = [...output.matchAll(/^version (\d+) (\d+)$/gm)];
      const reported = reports.length > 0 ? Number(reports.at(-1)![1]) : current;
      const found = await checkIncremental(directory);
      if (found !== reported && found !== reported + 1)
        throw new Error(`Found save ${found}, expected ${reported} or ${reported + 1}`);
      if (found === reported) counts.reported++;
      else counts.after++;
      for (const report of reports)
        counts.mostPageFiles = Math.max(counts.mostPageFiles, Number(report[2]));
      current = found;
    }
    console.log(
      `${kills} kills among ${current} saves of an eighth of ${INCREMENTAL_PAGES} pages, in up ` +
        `to ${counts.mostPageFiles} page files: ${counts.reported} left the last save that was ` +
        `reported, ${counts.after} the one after it, every page checked`,
    );
  } finally {
    rmSync(root, { recursive: true });
  }
}

/** The output of a process that is killed some time after its first output. */
async function killLater(command: string[], afterMs: number): Promise<string> {
  const child = Bun.spawn(command, { stdout: "pipe", stderr: "inherit" });
  let output = "";
  let timer: Timer | undefined;
  for await (const chunk of child.stdout) {
    output += Buffer.from(chunk).toString();
    timer ??= setTimeout(() => child.kill("SIGKILL"), afterMs);
  }
  await child.exited;
  clearTimeout(timer);
  if (child.signalCode !== "SIGKILL")
    throw new Error(`The process ended by itself: ${child.exitCode}`);
  return output;
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
    incremental: { type: "boolean", default: false },
  },
});
const { incremental } = values;
if (values.child === undefined) await (incremental ? mainIncremental : main)(Number(values.kills));
else if (incremental) await incrementalChild(values.child);
else await child(values.child, Number(values.version));
