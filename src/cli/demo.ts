/**
 * `pgalloc demo`: shows the library's purpose in one minute, without network or data. One process
 * fills memory with a table, answers some questions and writes a checkpoint. A second one restores
 * it in the background and answers the same questions while most of the table is still on disk. The
 * answers are compared.
 */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FileRange } from "../pages/range.ts";
import { MemoryFile } from "../file/memory-file.ts";
import type { MapServer } from "../map/serve.ts";
import { serveMap } from "../map/serve-map.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { parseArguments, parseInteger, UsageError } from "./arguments.ts";
import { formatBytes } from "./bytes.ts";
import { formatRate, Timeline } from "./timeline.ts";
import { print } from "./print.ts";

/** The questions: the sums of the rows at these fractions of the table. A row is one page. */
const QUESTIONS = [0.5, 0.99, 0.01, 0.25];

/** Set for the second process. Its parent has written the checkpoint. */
const RESTORE_VARIABLE = "PGALLOC_DEMO_RESTORE";

const END_SIGNALS = ["SIGINT", "SIGTERM"] as const;

export async function demo(args: string[]): Promise<number> {
  const { values } = parseArguments(
    args,
    { size: { type: "string" }, directory: { type: "string" }, web: { type: "boolean" } },
    [],
  );
  const sizeMiB = parseInteger("--size", values.size ?? "512", 1, 65536);
  const restoreFrom = process.env[RESTORE_VARIABLE];
  const isOnWeb = values.web === true;
  if (restoreFrom !== undefined) return await restore(restoreFrom, isOnWeb);
  const directory = values.directory ?? mkdtempSync(join(tmpdir(), "pgalloc-demo-"));
  if (values.directory !== undefined) requireUnused(directory);
  try {
    return await firstStart(directory, sizeMiB * 2 ** 20, isOnWeb);
  } finally {
    if (values.directory === undefined) rmSync(directory, { recursive: true });
  }
}

/** The demo must not overwrite a checkpoint of the user. */
function requireUnused(directory: string): void {
  try {
    if (readdirSync(directory).length > 0)
      throw new UsageError(`Expected --directory to be new or empty, got '${directory}'`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

async function firstStart(directory: string, sizeBytes: number, isOnWeb: boolean): Promise<number> {
  const timeline = new Timeline("First start");
  using file = MemoryFile.create({ name: "demo" });
  const table = file.allocate(sizeBytes);
  const filledFrom = timeline.mark(
    `process is up, ${formatBytes(sizeBytes)} allocated, none of it committed`,
  );
  fillTable(file, table);
  const filled = timeline.mark("the table is filled");
  const answers = QUESTIONS.map((question) => answer(file, rowOf(table, question)));
  timeline.mark(`${answers.length} questions answered: ${answers.join(", ")}`);
  const userData = new TextEncoder().encode(
    JSON.stringify({ start: table.start, end: table.end, answers }),
  );
  const onProgress = (now: { writtenBytes: number; totalBytes: number }) =>
    timeline.bar(now.writtenBytes, now.totalBytes);
  const report = await file.saveTo(directory, { userData, onProgress });
  const rate = formatRate(report.pagesBytes, report.durationMs);
  timeline.mark(`checkpoint written and synced: ${formatBytes(report.pagesBytes)}, ${rate}`);
  print(
    `${" ".repeat(15)}filling took ${(filled - filledFrom).toFixed(0)} ms; no later start does ` +
      "it again",
  );
  const flags = isOnWeb ? ["--web"] : [];
  const program = join(import.meta.dir, "main.ts");
  const child = Bun.spawn([process.execPath, program, "demo", ...flags], {
    env: { ...process.env, [RESTORE_VARIABLE]: directory },
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit",
  });
  return await untilExited(child);
}

/**
 * At Ctrl-C a terminal signals both processes. This one stays until the other has ended, so that it
 * can remove the checkpoint.
 */
async function untilExited(child: Bun.Subprocess): Promise<number> {
  const pass = (signal: NodeJS.Signals) => child.kill(signal);
  for (const signal of END_SIGNALS) process.on(signal, pass);
  const exitCode = await child.exited;
  for (const signal of END_SIGNALS) process.off(signal, pass);
  return exitCode;
}

async function restore(directory: string, isOnWeb: boolean): Promise<number> {
  const timeline = new Timeline("Every later start, in a new process");
  timeline.mark("process is up");
  const onProgress = (now: { loadedBytes: number; totalBytes: number }) =>
    timeline.bar(now.loadedBytes, now.totalBytes);
  const startedMs = performance.now();
  using file = await MemoryFile.loadFrom(directory, { background: true, onProgress });
  timeline.mark("metadata is read: the file is there, its pages are loading");
  const map = isOnWeb ? await serveMap(file, { title: "pgalloc demo" }) : undefined;
  if (map !== undefined) timeline.mark(`the page map is at ${map.url}`);
  const { start, end, answers } = JSON.parse(
    new TextDecoder().decode(file.userData ?? new Uint8Array()),
  );
  const table = new FileRange(start, end);
  const found: string[] = [];
  for (const question of QUESTIONS) {
    const row = rowOf(table, question);
    await file.awaitLoad(row);
    found.push(answer(file, row));
    const { loadedBytes, totalBytes } = file.loadStats();
    timeline.mark(
      `answer ${found.length}: ${found.at(-1)}, with ${formatBytes(loadedBytes)} of ` +
        `${formatBytes(totalBytes)} loaded`,
    );
  }
  await file.awaitLoad();
  const { loadedBytes } = file.loadStats();
  const rate = formatRate(loadedBytes, performance.now() - startedMs);
  timeline.mark(`all loaded: ${formatBytes(loadedBytes)}, ${rate}, every page checked`);
  const wrong = countWrong(file, table);
  const same = JSON.stringify(found) === JSON.stringify(answers) && wrong === 0;
  print(
    same
      ? "\nThe answers are the same, and so is every page."
      : `\nDIFFERENT: ${wrong} pages are not what they were.`,
  );
  if (map !== undefined) await untilInterrupted(map);
  return same ? 0 : 1;
}

/** Serves the page map until the user ends the program. */
async function untilInterrupted(map: MapServer): Promise<void> {
  print(`\nThe page map stays at ${map.url} until you press Ctrl-C.`);
  await new Promise<void>((resolve) => {
    // A signal may come twice: from the terminal, and from the first process.
    for (const signal of END_SIGNALS) process.on(signal, () => resolve());
  });
  await map.stop();
}

const WORDS = PAGE_SIZE / 4;

/** Scrambles a row's number, so that all pages differ. */
function seedOf(row: number): number {
  return Math.imul(row + 1, 0x9e3779b1) >>> 0;
}

function fillTable(file: MemoryFile, table: FileRange): void {
  let row = 0;
  for (const view of file.views(table)) {
    const words = new Uint32Array(view.buffer, view.byteOffset, view.byteLength / 4);
    for (let at = 0; at < words.length; at += WORDS, row++) {
      const seed = seedOf(row);
      for (let i = 0; i < WORDS; i++) words[at + i] = seed + i * i;
    }
  }
}

function rowOf(table: FileRange, part: number): FileRange {
  const row = Math.floor((table.length / PAGE_SIZE - 1) * part);
  return new FileRange(table.start + row * PAGE_SIZE, table.start + (row + 1) * PAGE_SIZE);
}

/** The sum of a row, in hexadecimal. */
function answer(file: MemoryFile, row: FileRange): string {
  const sum = file.view(row, Uint32Array).reduce((total, word) => (total + word) >>> 0, 0);
  return sum.toString(16).padStart(8, "0");
}

function countWrong(file: MemoryFile, table: FileRange): number {
  let row = 0;
  let wrong = 0;
  for (const view of file.views(table)) {
    const words = new Uint32Array(view.buffer, view.byteOffset, view.byteLength / 4);
    for (let at = 0; at < words.length; at += WORDS, row++) {
      const seed = seedOf(row);
      for (let i = 0; i < WORDS; i++) {
        if (words[at + i] === (seed + i * i) >>> 0) continue;
        wrong++;
        break;
      }
    }
  }
  return wrong;
}
