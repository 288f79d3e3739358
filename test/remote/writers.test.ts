/** Writers of one place in S3: none replaces a checkpoint that it does not know. */
import { afterAll, afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { KNOWN_CHECKPOINTS } from "../../src/control/control.ts";
import { knownIds, noteCheckpoint } from "../../src/core/known-checkpoints.ts";
import { coreOf } from "../../src/file/memory-file.ts";
import { parseS3Place } from "../../src/http/s3-options.ts";
import {
  CheckpointConflictError,
  loadAll,
  MemoryFile,
  PAGE_SIZE,
  RemoteError,
  saveAll,
} from "../../src/index.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { S3Server } from "../http/support/s3-server.ts";
import type { SaveRequest } from "./support/save-worker.ts";
import { filledFile, namesIn, PLACE, s3Of } from "./support/store.ts";

let server: S3Server;
beforeEach(async () => {
  server = await S3Server.start();
});
afterEach(() => server[Symbol.asyncDispose]());
afterAll(() => terminateIdleThreads());

const options = () => ({ s3: s3Of(server) });
const load = () => MemoryFile.loadFrom(PLACE, options());
const save = (file: MemoryFile) => file.saveTo(PLACE, options());

function write(file: MemoryFile, page: number, byte: number): void {
  file.view({ start: page * PAGE_SIZE, end: (page + 1) * PAGE_SIZE }).fill(byte);
}

/** The first byte of each page of the newest checkpoint. */
async function firstBytes(pages: number): Promise<number[]> {
  using file = await load();
  return Array.from({ length: pages }, (_, page) => {
    return file.view({ start: page * PAGE_SIZE, end: (page + 1) * PAGE_SIZE })[0]!;
  });
}

async function publishZeros(pages: number): Promise<void> {
  using file = MemoryFile.create();
  file.allocate(pages * PAGE_SIZE);
  await save(file);
}

async function expectConflict(saving: Promise<unknown>): Promise<void> {
  const before = namesIn(server);
  const error = await saving.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(CheckpointConflictError);
  expect((error as Error).message).toBe(
    "Another writer has published a checkpoint that this file was not made from " +
      `(${PLACE}); load it and repeat the changes, or save to another place`,
  );
  expect(namesIn(server)).toEqual(before);
}

for (const incremental of [true, false]) {
  for (const first of [0, 1] as const) {
    const title = `${incremental ? "incremental" : "full"}, loaded as number ${first + 1}`;
    test(`saveTo of two that loaded conflicts once, and both continue (${title})`, async () => {
      await publishZeros(2);
      const files = [await load(), await load()] as const;
      const [winner, loser] = [files[first], files[1 - first]!];
      const saving = { ...options(), incremental };
      write(winner, 0, 1);
      await winner.saveTo(PLACE, saving);
      write(loser, 1, 2);
      await expectConflict(loser.saveTo(PLACE, saving));
      await expectConflict(loser.saveTo(PLACE, saving));
      expect(await firstBytes(2)).toEqual([1, 0]);

      write(winner, 0, 3);
      await winner.saveTo(PLACE, saving);
      loser.destroy();
      using again = await load();
      write(again, 1, 2);
      await again.saveTo(PLACE, saving);
      expect(await firstBytes(2)).toEqual([3, 2]);
      await expectConflict(winner.saveTo(PLACE, saving));
      winner.destroy();
    });
  }
}

for (const first of [0, 1] as const) {
  test(`saveTo of two that open made at one place conflicts once (${first})`, async () => {
    const open = async () => {
      const file = await MemoryFile.open(PLACE, { ...options(), create: true });
      file.allocate(2 * PAGE_SIZE);
      return file;
    };
    const files = [await open(), await open()] as const;
    const [winner, loser] = [files[first], files[1 - first]!];
    write(winner, 0, 1);
    await save(winner);
    write(loser, 1, 2);
    await expectConflict(save(loser));
    write(winner, 1, 3);
    await save(winner);
    expect(await firstBytes(2)).toEqual([1, 3]);
    await loser.saveTo("s3://bucket/elsewhere", options());
    for (const file of files) file.destroy();
  });
}

test("saveTo works after a refresh", async () => {
  await publishZeros(2);
  using writer = await load();
  using follower = await load();
  for (const byte of [1, 2]) {
    write(writer, 0, byte);
    await save(writer);
    await expectConflict(save(follower));
    expect(await follower.refresh()).toBe(true);
    write(follower, 1, byte);
    await save(follower);
    expect(await firstBytes(2)).toEqual([byte, byte]);
    expect(await writer.refresh()).toBe(true);
  }
});

test("saveTo of overlapping writers that know the place succeeds once", async () => {
  await publishZeros(1);
  using one = await load();
  using other = await load();
  write(one, 0, 1);
  write(other, 0, 2);
  const results = await Promise.allSettled([save(one), save(other)]);
  const failed = results.filter((result) => result.status === "rejected");
  expect(failed.map(({ reason }) => reason.message)).toEqual([
    expect.stringContaining("load it and repeat the changes"),
  ]);
  const loser = results[0]!.status === "rejected" ? one : other;
  await expectConflict(save(loser));
  const winner = loser === one ? other : one;
  write(winner, 0, 3);
  await save(winner);
});

test("saveTo of a file that does not know the place replaces what is there", async () => {
  await publishZeros(1);
  using known = await load();
  using file = filledFile(1);
  // The same name in another store is another place.
  await using elsewhere = await S3Server.start();
  await file.saveTo(PLACE, { s3: s3Of(elsewhere) });
  write(file, 0, 5);
  await save(file);
  expect(await firstBytes(1)).toEqual([5]);
  await expectConflict(save(known));
  await known.saveTo("s3://bucket/elsewhere", options());
});

test("saveTo into a place that was emptied is no conflict", async () => {
  using file = filledFile(1);
  await save(file);
  server.objects.clear();
  await save(file);
  write(file, 0, 5);
  await save(file);
  expect(namesIn(server).filter((name) => name.startsWith("manifest/"))).toHaveLength(2);
});

test("saveTo continues after a save that may have published", async () => {
  using file = filledFile(1);
  await save(file);
  using other = await load();
  const full = { ...options(), incremental: false };
  // Published: the answer is lost, and the manifest cannot be read.
  server.misbehave(
    { method: "PUT", path: /manifest\//, times: 1, fault: { losesAnswer: true } },
    { method: "GET", path: /manifest\/\d/, skip: 1, fault: { status: 403 } },
  );
  await expect(file.saveTo(PLACE, full)).rejects.toThrow(RemoteError);
  expect(namesIn(server).filter((name) => name.startsWith("manifest/"))).toHaveLength(2);
  server.misbehave();
  await file.saveTo(PLACE, full);
  await expectConflict(save(other));
  // Not published.
  server.misbehave({ method: "PUT", path: /manifest\//, fault: { status: 403 } });
  await expect(file.saveTo(PLACE, full)).rejects.toThrow(RemoteError);
  server.misbehave();
  await file.saveTo(PLACE, full);
});

test("saveTo knows the checkpoint that a cache had", async () => {
  const root = mkdtempSync(join(tmpdir(), "pgalloc-writers-"));
  const cache = { directory: join(root, "cache") };
  try {
    await publishZeros(1);
    (await MemoryFile.loadFrom(PLACE, { ...options(), cache })).destroy();
    using file = await MemoryFile.loadFrom(PLACE, { ...options(), cache });
    write(file, 0, 1);
    await save(file);
    using stale = await MemoryFile.loadFrom(PLACE, {
      ...options(),
      cache: { ...cache, offline: true },
    });
    await expectConflict(save(stale));
  } finally {
    rmSync(root, { recursive: true });
  }
});

test("saveAll conflicts if one of its files knows an older checkpoint", async () => {
  using one = filledFile(1);
  using other = filledFile(1);
  await saveAll(PLACE, { one, other }, options());
  using files = await loadAll(PLACE, options());
  write(one, 0, 5);
  await saveAll(PLACE, { one, other }, options());
  using added = filledFile(1);
  await expectConflict(saveAll(PLACE, new Map([...files, ["added", added]]), options()));
  await saveAll(PLACE, { one, other, added }, options());
});

/** Saves in a Worker. Resolves with "saved", or the error's code. */
async function saveInWorker(request: SaveRequest): Promise<string> {
  const worker = new Worker(new URL("./support/save-worker.ts", import.meta.url));
  const answer = new Promise<MessageEvent<string>>((resolve, reject) => {
    worker.addEventListener("message", resolve, { once: true });
    worker.addEventListener("error", reject, { once: true });
  });
  worker.postMessage(request);
  const { data } = await answer;
  worker.terminate();
  return data;
}

test("saveTo knows what other threads have loaded and saved", async () => {
  await publishZeros(1);
  using file = await load();
  using other = await load();
  const request = { handle: file.share(), where: PLACE, ...options() };
  expect(await saveInWorker({ ...request, byte: 1 })).toBe("saved");
  await save(file);
  const late = { ...request, handle: other.share(), byte: 2 };
  expect(await saveInWorker(late)).toBe("ERR_CHECKPOINT_CONFLICT");
  expect(await firstBytes(1)).toEqual([1]);
});

test("knownIds forgets whole places, the one noted longest ago first", () => {
  using file = MemoryFile.create();
  const core = coreOf(file);
  const place = (name: string | number) => parseS3Place(`s3://bucket/${name}`, options().s3);
  noteCheckpoint(core, place("main"), 1n);
  for (let i = 0; i < 2 * KNOWN_CHECKPOINTS; i++) {
    noteCheckpoint(core, place(i), 7n);
    noteCheckpoint(core, place("main"), BigInt(i + 2), knownIds(core, place("main")));
    expect(knownIds(core, place("main"))).toEqual([BigInt(i + 2)]);
  }
  expect(knownIds(core, place(0))).toEqual([]);
  expect(knownIds(core, place(2 * KNOWN_CHECKPOINTS - 1))).toEqual([7n]);
});

test("knownIds keeps the checkpoint before many unclear saves", () => {
  using file = MemoryFile.create();
  const core = coreOf(file);
  const place = parseS3Place(PLACE, options().s3);
  for (let id = 1n; id <= 2 * KNOWN_CHECKPOINTS; id++) noteCheckpoint(core, place, id);
  const ids = knownIds(core, place);
  expect(ids).toHaveLength(KNOWN_CHECKPOINTS);
  expect([ids[0], ids.at(-1)]).toEqual([1n, 2n * BigInt(KNOWN_CHECKPOINTS)]);
});
