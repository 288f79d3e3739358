/**
 * A stamped checkpoint of 8 units, loaded under injected faults, and the answers of its waiters.
 */
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errnoNumber, uringUnavailable } from "../../../ffi/index.ts";
import {
  FileRange,
  HUGE_PAGE_SIZE,
  type MemoryFile,
  NotLoadedError,
  PAGE_SIZE,
} from "../../../src/index.ts";
import { threadCount } from "../../../src/threads/pool.ts";
import { expectDescriptors, namedDescriptors } from "../support/descriptors.ts";
import type { Faults } from "../support/fault-control.ts";
import { beginFaults } from "../support/in-process.ts";
import { pageWords, saveStamped, stampOf } from "../support/stamped.ts";

export const PAGES_PER_UNIT = HUGE_PAGE_SIZE / PAGE_SIZE;
/** Eight units of 2 MiB. */
export const PAGES = 8 * PAGES_PER_UNIT;
export const READS = ["pread", "preadv", "uring_read", "uring_readv"] as const;
export const noUring = uringUnavailable();
export const QUEUES =
  noUring === null ? (["workers", "inline", "uring"] as const) : (["workers", "inline"] as const);
export const EIO = errnoNumber("EIO");

export let faults: Faults;
export let endFaults: () => Promise<void>;
export let directory: string;
export let checkpoint: string;

/** The pages files of the checkpoint. */
export function pagesFiles(): string[] {
  return readdirSync(checkpoint)
    .filter((name) => name.startsWith("pages"))
    .map((name) => join(checkpoint, name));
}

export function units(first: number, end: number): FileRange {
  return new FileRange(first * HUGE_PAGE_SIZE, end * HUGE_PAGE_SIZE);
}

/**
 * As `askAll`, when the load has ended: a waiter may be answered a moment before all counts are
 * right.
 */
export async function answers(file: MemoryFile, unitsEach = 1): Promise<("loaded" | Error)[]> {
  const answered = await askAll(file, unitsEach);
  while (file.isLoading) await Bun.sleep(1);
  return answered;
}

/** The answers of the waiters of all units: "loaded", or the error. */
export async function askAll(file: MemoryFile, unitsEach = 1): Promise<("loaded" | Error)[]> {
  const waits = Array.from({ length: 8 / unitsEach }, (_, i) =>
    file.awaitLoad(units(unitsEach * i, unitsEach * (i + 1))),
  );
  const settled = await Promise.allSettled(waits);
  return settled.map((result) =>
    result.status === "fulfilled" ? "loaded" : (result.reason as Error),
  );
}

/**
 * Every page either throws when it is viewed, or is loaded and has its stamp. An aborted load may
 * still finish its reads.
 */
export function checkPages(file: MemoryFile): void {
  const wrong: number[] = [];
  for (let page = 0; page < PAGES; page++) {
    const range = new FileRange(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
    const wasLoaded = file.isLoaded(range);
    const words = loadedWords(file, page);
    if (words === null ? wasLoaded : !file.isLoaded(range) || stampOf(words, page) !== 1)
      wrong.push(page);
  }
  expect(wrong).toEqual([]);
}

export function loadedWords(file: MemoryFile, page: number): Uint32Array | null {
  try {
    return pageWords(file, page);
  } catch (error) {
    expect(error).toBeInstanceOf(NotLoadedError);
    return null;
  }
}

/** What is open and mapped now. */
export function openNow() {
  return { descriptors: namedDescriptors(), memories: mappedMemories() };
}

/** Expects that nothing is open or mapped that was not `before`. Waits for that. */
export async function gone(before: ReturnType<typeof openNow>): Promise<void> {
  await expectDescriptors(before.descriptors);
  const more = () => mappedMemories().filter((memory) => !before.memories.includes(memory));
  for (let i = 0; i < 400 && more().length > 0; i++) await Bun.sleep(5);
  expect(more()).toEqual([]);
}

/** The inode and name of each mapped memory file, once. */
function mappedMemories(): string[] {
  const lines = readFileSync("/proc/self/maps", "utf8").matchAll(/ (\d+ +\/memfd:\S+)/g);
  return [...new Set([...lines].map(([, memory]) => memory!))];
}

// Waiters of two units: one that they would read themselves while the Workers start.

/** Registers the hooks of the calling test file. */
export function useLoadFaults(): void {
  beforeAll(async () => {
    ({ faults, end: endFaults } = await beginFaults());
  });
  afterAll(() => endFaults());
  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), "pgalloc-load-faults-"));
    checkpoint = join(directory, "checkpoint");
    await saveStamped(checkpoint, PAGES, 1);
  });
  afterEach(async () => {
    faults.disarm();
    rmSync(directory, { recursive: true });
    while (threadCount().busy > 0) await Bun.sleep(1);
  });
}
