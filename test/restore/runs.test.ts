/** The cost of a restore, in counts: no system call for each extent or run. */
import { expect, test } from "bun:test";
import { syscallCounts } from "../../ffi/index.ts";
import { readCrcs } from "../../src/checkpoint/columns.ts";
import { closeContents, openCheckpoint } from "../../src/checkpoint/directory.ts";
import { MemoryFile, PAGE_SIZE, terminateIdleThreads } from "../../src/index.ts";
import { LoadState } from "../../src/load/load-state.ts";
import { LoadWord } from "../../src/load/load-tables.ts";
import { coreOf } from "../../src/file/memory-file.ts";
import { checkInvariants } from "../../src/segment/invariants.ts";
import { withDirectory } from "../checkpoint/support/directory.ts";

/**
 * A checkpoint with `extents` extents of one page, in as many allocations if `cut`, else in one.
 */
async function saveExtents(directory: string, extents: number, cut: boolean): Promise<string> {
  const file = MemoryFile.create();
  const range = file.allocate(2 * extents * PAGE_SIZE);
  for (let i = 0; i < extents; i++) {
    const start = range.start + 2 * i * PAGE_SIZE;
    file.view({ start, end: start + PAGE_SIZE }, Float64Array).fill(i + 1);
    if (cut) file.decRef({ start: start + PAGE_SIZE, end: start + 2 * PAGE_SIZE });
  }
  const report = await file.saveTo(directory);
  expect(report.extents).toBe(extents);
  file.destroy();
  return directory;
}

/** System calls that this thread makes until loadFrom has returned. */
async function callsOfLoad(directory: string): Promise<Record<string, number>> {
  // One that is idle would save the calls that start a thread.
  await terminateIdleThreads();
  const before = { ...syscallCounts };
  const loading = MemoryFile.loadFrom(directory, { background: true, queue: "workers" });
  const calls = Object.fromEntries(
    Object.entries(syscallCounts).flatMap(([name, count]) =>
      count === before[name] ? [] : [[name, count - (before[name] ?? 0)]],
    ),
  );
  const file = await loading;
  await file.awaitLoad();
  file.destroy();
  return calls;
}

test("loadFrom makes the same system calls for 8 extents and runs as for 4,096", async () => {
  await withDirectory(async (root) => {
    const few = await callsOfLoad(await saveExtents(`${root}/few`, 8, true));
    expect(few).toEqual(await callsOfLoad(await saveExtents(`${root}/many`, 4096, true)));
    expect(few).toEqual(await callsOfLoad(await saveExtents(`${root}/one`, 4096, false)));
    expect(few.pread).toBe(3); // The header, the metadata, the trailer.
  });
});

test("every thread sees the extents and checksums of a manifest", async () => {
  await withDirectory(async (root) => {
    const { manifest, contents } = openCheckpoint(await saveExtents(root, 100, false));
    const { pageMap, crcs } = manifest.files[0]!;
    const checksums = readCrcs(contents[0]!.fd, crcs, contents[0]!.path);
    closeContents(contents);
    const file = await MemoryFile.loadFrom(root);
    const { state } = coreOf(file).loader!;
    const attached = new LoadState(structuredClone(state.handle));
    expect([...attached.handle.map.extents.start]).toEqual([...pageMap.extents.start]);
    expect([...attached.checksums!.values]).toEqual([...checksums]);
    expect(attached.words[LoadWord.ContentPages]).toBe(100);
    file.destroy();
  });
});

test("loadFrom makes the same tables as the saved file has", async () => {
  await withDirectory(async (root) => {
    const file = MemoryFile.create({ expectHugepages: true });
    for (let i = 0; i < 50; i++)
      file.allocate((1 + (i % 7)) * PAGE_SIZE, { kind: i % 3, group: i % 2 });
    const huge = file.allocate(2 ** 22, { huge: true });
    file.incRef({ start: huge.start, end: huge.start + PAGE_SIZE });
    file.decRef({ start: huge.start + PAGE_SIZE, end: huge.start + 3 * PAGE_SIZE });
    file.decRef({ start: 3 * PAGE_SIZE, end: 9 * PAGE_SIZE });
    await file.released();
    await file.saveTo(root);
    const back = await MemoryFile.loadFrom(root);
    checkInvariants(coreOf(back).allocator.set);
    expect(back.dump()).toBe(file.dump());
    expect(back.allocatedBytes).toBe(file.allocatedBytes);
    expect(back.allocate(PAGE_SIZE).start).toBe(file.allocate(PAGE_SIZE).start);
    file.destroy();
    back.destroy();
  });
});
