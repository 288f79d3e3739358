/** Good checkpoints to start from. Together they have every feature of a checkpoint. */
import { cpSync } from "node:fs";
import { join } from "node:path";
import { exportTo } from "../../../src/gvisor/index.ts";
import { CHUNK_SIZE, HUGE_PAGE_SIZE, MemoryFile, PAGE_SIZE, saveAll } from "../../../src/index.ts";

export interface BaseCheckpoint {
  readonly directory: string;
}

/** Writes them below `root`, each to a directory of its own. */
export async function buildCheckpoints(root: string, isGvisor: boolean): Promise<BaseCheckpoint[]> {
  const makers = { mixed, huge, sparse, empty };
  const bases: BaseCheckpoint[] = [];
  for (const [name, make] of Object.entries(makers)) {
    using file = make();
    await file.released();
    const directory = join(root, name);
    if (isGvisor) await exportTo(file, directory);
    else
      await file.saveTo(
        directory,
        name === "mixed" ? { userData: new Uint8Array(100).fill(7) } : {},
      );
    bases.push({ directory });
  }
  if (!isGvisor) {
    const directory = join(root, "several");
    using first = mixed();
    using second = sparse();
    using third = empty();
    const userData = new Uint8Array(33).fill(5);
    await saveAll(
      directory,
      { first, second, third },
      { userData, fileUserData: { second: userData } },
    );
    bases.push({ directory });
    bases.push(await layers(join(root, "layers")));
  }
  if (isGvisor) {
    // gVisor's own, with contents inside the metadata stream.
    const directory = join(root, "inline");
    cpSync(join(import.meta.dir, "../../data/gvisor/inline"), directory, { recursive: true });
    bases.push({ directory });
  }
  return bases;
}

/** Several page files that are live in part, with raw and compressed frames. */
async function layers(directory: string): Promise<BaseCheckpoint> {
  using file = mixed();
  const range = file.allocate(40 * PAGE_SIZE);
  file.view(range).fill(1);
  for (const [layer, compression] of (["none", "zstd", "none", "zstd"] as const).entries()) {
    const first = range.start + layer * 5 * PAGE_SIZE;
    file.view({ start: first, end: first + 12 * PAGE_SIZE }).fill(layer + 2);
    await file.saveTo(directory, { compression });
  }
  return { directory };
}

/** Kinds, groups, references, holes, runs of one page. */
function mixed(): MemoryFile {
  const file = MemoryFile.create({ expectHugepages: true });
  for (let i = 0; i < 12; i++) {
    const range = file.allocate((1 + (i % 4)) * PAGE_SIZE, { kind: i % 5, group: i % 3 });
    file.view(range).fill(i);
    if (i % 3 === 0) file.incRef({ start: range.start, end: range.start + PAGE_SIZE });
    if (i % 4 === 1) file.decRef({ start: range.end - PAGE_SIZE, end: range.end });
  }
  file.view(file.allocate(HUGE_PAGE_SIZE, { huge: true }))[0] = 1;
  return file;
}

/** Huge pages, some of them sub-released in part. */
function huge(): MemoryFile {
  const file = MemoryFile.create({ expectHugepages: true });
  const range = file.allocate(4 * HUGE_PAGE_SIZE, { huge: true });
  for (let at = 0; at < range.length; at += HUGE_PAGE_SIZE / 4) file.view(range)[at] = 1 + at;
  const drop = (from: number, to: number) =>
    file.decRef({ start: range.start + from * PAGE_SIZE, end: range.start + to * PAGE_SIZE });
  drop(1, 5);
  drop(700, 1100);
  drop(1500, 1501);
  return file;
}

/** Two chunks, an allocation across their border, few pages with contents. */
function sparse(): MemoryFile {
  const file = MemoryFile.create();
  const range = file.allocate(CHUNK_SIZE + 4 * HUGE_PAGE_SIZE);
  for (const at of [0, CHUNK_SIZE - PAGE_SIZE, CHUNK_SIZE, range.length - PAGE_SIZE]) {
    file.view({ start: range.start + at, end: range.start + at + PAGE_SIZE }).fill(9);
  }
  return file;
}

function empty(): MemoryFile {
  return MemoryFile.create();
}
