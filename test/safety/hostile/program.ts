/**
 * Loads hostile checkpoints in a process of its own, so that a crash is an exit code: FORMAT CASES
 * SEED. Each is refused with CorruptCheckpointError or OutOfMemoryError, or its every page can be
 * used. Prints one line of JSON.
 */
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { importFrom } from "../../../src/gvisor/index.ts";
import {
  CorruptCheckpointError,
  loadAll,
  type MemoryFile,
  OutOfMemoryError,
  PAGE_SIZE,
} from "../../../src/index.ts";
import { coreOf } from "../../../src/file/memory-file.ts";
import { checkInvariants } from "../../../src/segment/invariants.ts";
import { pageFiles } from "../../checkpoint/support/page-files.ts";
import { buildCheckpoints } from "./checkpoints.ts";
import { Canaries } from "./canaries.ts";
import { hostile, type Hostile } from "./edits.ts";
import { hostileExport } from "./gvisor-edits.ts";

/** The memory that a checkpoint may need here. Some hostile ones need a petabyte. */
const LIMIT_BYTES = 8 * 2 ** 30;
const WARM_UP_CASES = 100;
const CHECK_EVERY = 200;

const [format, casesText, seedText] = process.argv.slice(2);
const isGvisor = format === "gvisor";
const metaName = isGvisor ? "pages_meta.img" : "meta";
/** The largest file of page contents: the one whose size changes. */
function pagesPathOf(directory: string): string {
  if (isGvisor) return join(directory, "pages.img");
  const paths = pageFiles(directory).map((name) => join(directory, name));
  paths.sort((a, b) => statSync(b).size - statSync(a).size);
  return paths[0] ?? join(directory, "pages-none");
}

const counts = { cases: 0, refused: 0, overLimit: 0, damagedPages: 0, taken: 0 };
let warmKiB = 0;

interface Target {
  readonly directory: string;
  readonly pagesPath: string;
  readonly pages: Uint8Array | null;
}

async function attempt(target: Target, { meta, pagesBytes }: Hostile): Promise<void> {
  writeFileSync(join(target.directory, metaName), meta);
  const restorePages = changePages(target, pagesBytes);
  try {
    await load(target.directory);
  } finally {
    restorePages();
  }
  // As in any program. Without a turn of the event loop, the runtime keeps all that a WeakRef has
  // ever referred to.
  await new Promise((resolve) => setImmediate(resolve));
  if (++counts.cases === WARM_UP_CASES) warmKiB = peakKiB();
  if (counts.cases % CHECK_EVERY === 0) canaries.check();
}

/** Gives the pages file another size. Returns a function that restores it. */
function changePages({ pagesPath: path, pages }: Target, bytes: number | null): () => void {
  if (pages === null || bytes === pages.byteLength) return () => {};
  if (bytes === null) rmSync(path);
  else truncateSync(path, bytes);
  return () => writeFileSync(path, pages);
}

async function load(directory: string): Promise<void> {
  let files: MemoryFile[];
  try {
    const options = { background: true, queue: "inline", limitBytes: LIMIT_BYTES } as const;
    files = isGvisor
      ? [await importFrom(directory, options)]
      : [...(await loadAll(directory, options)).values()];
  } catch (error) {
    if (error instanceof CorruptCheckpointError) counts.refused++;
    else if (error instanceof OutOfMemoryError) counts.overLimit++;
    else throw error;
    return;
  }
  try {
    const answers = await Promise.all(files.map(use));
    if (answers.every((isWhole) => isWhole)) counts.taken++;
    else counts.damagedPages++;
  } finally {
    for (const file of files) file.destroy();
  }
}

/**
 * Uses an accepted checkpoint: its pages can be read or throw, and be allocated, dropped, released.
 * False if some cannot be read.
 */
async function use(file: MemoryFile): Promise<boolean> {
  checkInvariants(coreOf(file).allocator.set);
  let isWhole = true;
  try {
    await file.awaitLoad();
  } catch (error) {
    if (!(error instanceof CorruptCheckpointError)) throw error;
    isWhole = false;
  }
  // The first bad page rejects at once. The others are read all the same.
  while (file.isLoading) await Bun.sleep(0);
  const { totalBytes, loadedBytes, failedBytes } = file.loadStats();
  if (loadedBytes + failedBytes !== totalBytes)
    throw new Error(`${loadedBytes} + ${failedBytes} of ${totalBytes} bytes are settled`);
  if (file.allocatedBytes > LIMIT_BYTES - PAGE_SIZE) return isWhole;
  const page = file.allocate(PAGE_SIZE);
  if (!file.view(page).every((byte) => byte === 0)) throw new Error("A new page is not zero");
  file.view(page).fill(1);
  file.decRef(page);
  await file.released();
  checkInvariants(coreOf(file).allocator.set);
  return isWhole;
}

/** The peak memory of this process. */
function peakKiB(): number {
  return Number(/VmHWM:\s*(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))![1]);
}

const root = mkdtempSync(join(tmpdir(), "pgalloc-hostile-"));
using canaries = new Canaries();
try {
  const targets = (await buildCheckpoints(root, isGvisor)).map(({ directory }) => ({
    directory,
    meta: new Uint8Array(readFileSync(join(directory, metaName))),
    pagesPath: pagesPathOf(directory),
    pages: readIfExists(pagesPathOf(directory)),
  }));
  const inputs = targets.map((target, index) => {
    const input = isGvisor
      ? hostileExport(target.meta, target.pages?.byteLength ?? null)
      : hostile(target.meta, target.pages?.byteLength ?? 0);
    return input.map((found) => ({ index, input: found }));
  });
  await fc.assert(
    fc.asyncProperty(fc.oneof(...inputs), ({ index, input }) => attempt(targets[index]!, input)),
    { numRuns: Number(casesText), seed: Number(seedText) },
  );
  canaries.check();
  console.log(JSON.stringify({ ...counts, grownMiB: Math.round((peakKiB() - warmKiB) / 1024) }));
} finally {
  rmSync(root, { recursive: true });
}

function readIfExists(path: string): Uint8Array | null {
  return existsSync(path) ? new Uint8Array(readFileSync(path)) : null;
}
