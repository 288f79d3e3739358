/**
 * gVisor's own checkpoints read into MemoryFiles and compared with expected.json. Also forms of
 * checkpoints that the fixtures lack: waste, contents in the stream at any offset, empty files.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { importFrom } from "../../src/gvisor/index.ts";
import { requireGvisorPageSize } from "../../src/gvisor/page-size.ts";
import {
  CHUNK_SIZE,
  CorruptCheckpointError,
  NoCheckpointError,
  NotLoadedError,
  OutOfMemoryError,
  PAGE_SIZE,
  SyscallError,
  UnsupportedError,
} from "../../src/index.ts";
import { checkContents, checkDrop, checkRanges, type Expected } from "../support/expected.ts";

const fixtures = join(import.meta.dir, "../data/gvisor");
const scratch = mkdtempSync(join(tmpdir(), "pgalloc-import-"));
afterAll(() => rmSync(scratch, { recursive: true }));

const names = ["small", "huge", "inline"] as const;
const expectedOf = (name: string) =>
  JSON.parse(readFileSync(join(fixtures, name, "expected.json"), "utf8")) as Expected;

let copies = 0;
function copyOf(name: string): string {
  const copy = join(scratch, `${copies++}`);
  cpSync(join(fixtures, name), copy, { recursive: true });
  return copy;
}

describe.each(names)("gVisor's own file %s", (name) => {
  const expected = expectedOf(name);

  test("has every range, page and reference that gVisor names", async () => {
    using file = await importFrom(join(fixtures, name));
    expect(file.isLoading).toBe(false);
    expect(file.userData).toBeNull();
    expect(file.loadStats().loadedBytes).toBe(expected.filled.length * PAGE_SIZE);
    checkRanges(file, expected);
    expect(checkContents(file, expected)).toBe(file.allocatedBytes / PAGE_SIZE);
    await checkDrop(file, expected);
  });

  test.each(["auto", "inline"] as const)(
    "loads in the background over queue %s, page by page and then all",
    async (queue) => {
      using file = await importFrom(join(fixtures, name), { background: true, queue });
      checkRanges(file, expected);
      const { offset } = expected.filled.at(-1)!;
      const last = { start: offset, end: offset + PAGE_SIZE };
      // Threads may load the page between the question and the view. With the inline queue nothing
      // loads meanwhile.
      if (queue === "inline" && !file.isLoaded(last))
        expect(() => file.view(last)).toThrow(NotLoadedError);
      await file.awaitLoad(last);
      expect(file.view(last, BigUint64Array)[1]).toBe(file.view(last, BigUint64Array)[0]! + 8n);
      file.awaitLoadSync({
        start: expected.filled[0]!.offset,
        end: expected.filled[0]!.offset + PAGE_SIZE,
      });
      await file.awaitLoad();
      checkContents(file, expected);
      await checkDrop(file, expected);
    },
  );

  test("importFrom cancels pages that are dropped while they load", async () => {
    using file = await importFrom(join(fixtures, name), { background: true });
    await checkDrop(file, expected);
  });
});

test("importFrom applies limitBytes to referenced pages, not to address space", async () => {
  const directory = join(fixtures, "small");
  const used = expectedOf("small").live.reduce((sum, { start, end }) => sum + end - start, 0);
  using file = await importFrom(directory, { limitBytes: used });
  expect(() => file.allocate(PAGE_SIZE)).toThrow(OutOfMemoryError);
  await expect(importFrom(directory, { limitBytes: used - PAGE_SIZE })).rejects.toBeInstanceOf(
    OutOfMemoryError,
  );
});

test("importFrom puts the memory into the file at `path`", async () => {
  const path = join(scratch, "memory");
  using file = await importFrom(join(fixtures, "small"), { path });
  checkContents(file, expectedOf("small"));
});

describe("importFrom refuses", () => {
  const refused = async (
    directory: string,
    type: new (...args: never[]) => Error,
    message: string,
  ) => {
    const error = await importFrom(directory).then(
      (file) => {
        file.destroy();
        return undefined;
      },
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(type);
    expect(`${error}`).toContain(message);
  };

  test("a missing directory, a file and an empty directory", async () => {
    await refused(join(scratch, "absent"), NoCheckpointError, "ENOENT");
    await refused(join(fixtures, "optrace.json"), SyscallError, "ENOTDIR");
    await refused(
      mkdtempSync(join(scratch, "empty-")),
      NoCheckpointError,
      "no file pages_meta.img",
    );
  });

  test("metadata that is cut off anywhere", async () => {
    const directory = copyOf("huge");
    const path = join(directory, "pages_meta.img");
    for (let sizeBytes = readFileSync(path).byteLength - 1; sizeBytes >= 0; sizeBytes -= 97) {
      truncateSync(path, sizeBytes);
      await refused(directory, CorruptCheckpointError, "");
    }
  });

  test("pages that are cut off, or more than the metadata accounts for", async () => {
    const directory = copyOf("small");
    const path = join(directory, "pages.img");
    const pages = readFileSync(path);
    writeFileSync(path, Buffer.concat([pages, Buffer.alloc(1)]));
    await refused(directory, CorruptCheckpointError, "should end here");
    truncateSync(path, pages.byteLength - 1);
    await refused(directory, CorruptCheckpointError, "the metadata accounts for");
    rmSync(path);
    // Without a pages file, contents are expected behind the metadata.
    await refused(directory, CorruptCheckpointError, "");
  });

  test("inline contents that are cut off, and an object instead of a header", async () => {
    const directory = copyOf("inline");
    const path = join(directory, "pages_meta.img");
    const stream = readFileSync(path);
    const messageBytes = Number(stream.readBigUInt64LE(0));
    truncateSync(path, stream.byteLength - 1);
    await refused(directory, CorruptCheckpointError, "cut off");
    stream.fill(0xff, 8 + messageBytes, 8 + messageBytes + 9);
    stream[8 + messageBytes + 9] = 1;
    writeFileSync(path, stream);
    await refused(directory, CorruptCheckpointError, "objects");
  });

  test("a file that shrinks while it loads", async () => {
    const directory = copyOf("small");
    const file = await importFrom(directory, { background: true, queue: "inline" });
    truncateSync(join(directory, "pages.img"), 0);
    const result = await file.awaitLoad().then(
      () => "loaded",
      (error: unknown) => error,
    );
    if (result !== "loaded") expect(result).toBeInstanceOf(CorruptCheckpointError);
    file.destroy();
  });
});

test("importFrom changes nothing for bad arguments, and ends when its signal aborts", async () => {
  const directory = join(fixtures, "small");
  await expect(importFrom(directory, { queue: "fast" as never })).rejects.toBeInstanceOf(TypeError);
  await expect(importFrom(directory, { limitBytes: 1 })).rejects.toBeInstanceOf(RangeError);
  const reason = new Error("no more");
  await expect(importFrom(directory, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
});

test("requireGvisorPageSize refuses pages of another size by name", () => {
  expect(() => requireGvisorPageSize(16384)).toThrow(UnsupportedError);
  expect(() => requireGvisorPageSize(16384)).toThrow("16384");
  expect(() => requireGvisorPageSize(4096)).not.toThrow();
  expect(CHUNK_SIZE % 4096).toBe(0);
});
