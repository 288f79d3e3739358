/**
 * Saves to S3 that are killed at random times. At every time there is a whole checkpoint, and after
 * prune no object is left that no checkpoint names. `PGALLOC_KILLS` is the number (default: 40),
 * `PGALLOC_SEED` replays a run.
 */
import { afterAll, expect, test } from "bun:test";
import { join } from "node:path";
import { MemoryFile, NoCheckpointError, PAGE_SIZE } from "../../src/index.ts";
import type { Bucket } from "../../src/http/bucket.ts";
import { manifestPageFiles } from "../../src/remote/manifest-page-files.ts";
import { listPublished } from "../../src/remote/manifests.ts";
import { openPlace } from "../../src/remote/place.ts";
import { prune } from "../../src/remote/prune.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { s3Servers } from "./support/environment.ts";

const KILLS = Number(process.env["PGALLOC_KILLS"] ?? 40);
const SEED = Number(process.env["PGALLOC_SEED"] ?? Date.now() % 2 ** 31);
const AT_ONCE = 4;
const CHECK_EVERY = 5;
/** Long enough for a save or two beside others. */
const KILL_MS_MAX = 2500;
const DAY_MS = 24 * 3_600_000;
const program = join(import.meta.dir, "support/save-program.ts");

afterAll(() => terminateIdleThreads());

let state = SEED;
function random(): number {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return state / 2 ** 32;
}

/** Throws unless the place has a checkpoint of one stamp, or none. True if there is one. */
async function checkWhole(where: string, s3: object): Promise<boolean> {
  try {
    using file = await MemoryFile.loadFrom(where, { s3 });
    const words = file.view({ start: 0, end: 3000 * PAGE_SIZE }, Uint32Array);
    const stamp = words[0]!;
    const torn = words.findIndex((word, i) => word !== (Math.imul(i, 2_654_435_761) ^ stamp) >>> 0);
    if (torn >= 0) throw new Error(`Word ${torn} is of another checkpoint; seed ${SEED}`);
    return true;
  } catch (error) {
    if (error instanceof NoCheckpointError) return false;
    throw error;
  }
}

async function killOne(where: string, s3: { endpoint?: string }): Promise<void> {
  const keys = s3 as Record<string, string>;
  const child = Bun.spawn(
    [
      process.execPath,
      program,
      where,
      s3.endpoint!,
      keys["accessKeyId"]!,
      keys["secretAccessKey"]!,
    ],
    { stdout: "pipe", stderr: "inherit" },
  );
  await child.stdout.getReader().read();
  await Bun.sleep(random() * KILL_MS_MAX);
  child.kill("SIGKILL");
  await child.exited;
}

async function keysIn(bucket: Bucket): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of bucket.list(bucket.place.prefix)) keys.push(key);
  return keys;
}

for (const { title, s3 } of s3Servers()) {
  test(`${title}: ${KILLS} saves killed at random tear nothing and leave no orphan`, async () => {
    console.log(`seed ${SEED}`);
    const where = `s3://bucket/kills-${crypto.randomUUID()}`;
    let published = 0;
    for (let killed = 0; killed < KILLS; killed += AT_ONCE) {
      await Promise.all(Array.from({ length: AT_ONCE }, () => killOne(where, s3)));
      if ((killed / AT_ONCE) % CHECK_EVERY === 0 && (await checkWhole(where, s3))) published++;
    }
    expect(await checkWhole(where, s3)).toBe(true);
    expect(published).toBeGreaterThan(0);
    const { bucket } = await openPlace(where, { s3 });
    const before = await keysIn(bucket!);
    const report = await prune(bucket!, { keep: 3 }, Date.now() + 2 * DAY_MS);
    console.log(`${before.length} objects before prune`, JSON.stringify(report));
    const named = new Set<string>();
    for await (const { key } of listPublished(bucket!)) {
      named.add(key);
      for (const { id } of await manifestPageFiles(bucket!, key))
        named.add(`${bucket!.place.prefix}pages-${id.toString(16).padStart(16, "0")}`);
    }
    const after = await keysIn(bucket!);
    expect(after.filter((key) => !named.has(key))).toEqual([]);
    expect([...named].filter((key) => !after.includes(key))).toEqual([]);
    const uploads: string[] = [];
    for await (const { key } of bucket!.listUploads(bucket!.place.prefix)) uploads.push(key);
    expect(uploads).toEqual([]);
    expect(await checkWhole(where, s3)).toBe(true);
  });
}
