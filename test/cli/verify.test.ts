/** `pgalloc verify`: every section and every page of a checkpoint, good or damaged. */
import { HEADER_BYTES, Section, TABLE_ENTRY_BYTES } from "../../src/checkpoint/format.ts";
import { describe, expect, test } from "bun:test";
import { readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { onlyPageFile } from "../checkpoint/support/page-files.ts";
import { PAGE_SIZE } from "../../src/index.ts";
import {
  program,
  fixtures,
  root,
  checkpoint,
  run,
  copy,
  overwrite,
  useSample,
} from "./support/tool.ts";

useSample();

describe("verify", () => {
  test("exits with 0 for a good checkpoint of either format, and prints counts and bytes", () => {
    const { exitCode, stdout } = run("verify", checkpoint);
    expect(exitCode).toBe(0);
    expect(stdout).toContain("3 extents, 14 pages, 56 KiB read, 0 pages bad");
    for (const name of ["small", "huge", "inline"]) {
      const verdict = run("verify", join(fixtures, name));
      expect([verdict.exitCode, verdict.stdout]).toEqual([
        0,
        expect.stringContaining("no checksums"),
      ]);
    }
  });

  test("names every bad block by extent and offset, and exits with 1", () => {
    const directory = copy("bad-blocks");
    const pages = onlyPageFile(directory);
    for (const page of [2, 3, 4, 12]) overwrite(pages, page * PAGE_SIZE + 7);
    const { exitCode, stdout } = run("verify", directory, "--json");
    expect(exitCode).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({
      ok: false,
      pages: 14,
      badPages: 4,
      metadataErrors: [],
    });
    expect(JSON.parse(stdout).badBlocks).toEqual([
      {
        id: "main",
        extent: 0,
        file: basename(pages),
        offset: 2 * PAGE_SIZE,
        lengthBytes: 3 * PAGE_SIZE,
        memoryOffset: 2 * PAGE_SIZE,
        problem: "checksum",
      },
      {
        id: "main",
        extent: 1,
        file: basename(pages),
        offset: 12 * PAGE_SIZE,
        lengthBytes: PAGE_SIZE,
        memoryOffset: 15 * PAGE_SIZE,
        problem: "checksum",
      },
    ]);
    const text = run("verify", directory);
    expect(text.exitCode).toBe(1);
    expect(text.stdout).toContain(
      `extent 1, ${basename(pages)} offset ${12 * PAGE_SIZE}, ${PAGE_SIZE} bytes`,
    );
    expect(text.stdout).toContain("4 pages bad");
  });

  /** Where a section is in `meta`. */
  function sectionAt(id: number): number {
    const view = new DataView(new Uint8Array(readFileSync(join(checkpoint, "meta"))).buffer);
    for (let entry = HEADER_BYTES; ; entry += TABLE_ENTRY_BYTES)
      if (view.getUint32(entry, true) === id) return view.getFloat64(entry + 8, true);
  }

  const sectionsOf = (messages: readonly string[]) =>
    messages.map((message) => /section (\w+)/.exec(message)![1]);

  test("names each bad section, and still checks pages", () => {
    const directory = copy("bad-sections");
    for (const section of [Section.Chunks, Section.Runs, Section.UserData])
      overwrite(join(directory, "meta"), sectionAt(section));
    for (const page of [3, 4, 12]) overwrite(onlyPageFile(directory), page * PAGE_SIZE + 7);
    const { exitCode, stdout } = run("verify", directory, "--json");
    const { metadataErrors, badBlocks, pages, badPages } = JSON.parse(stdout);
    expect(exitCode).toBe(1);
    expect(sectionsOf(metadataErrors).toSorted()).toEqual(["chunks", "runs", "userData"]);
    expect([pages, badPages]).toEqual([14, 3]);
    expect(badBlocks).toMatchObject([
      { id: "main", extent: 0, offset: 3 * PAGE_SIZE, lengthBytes: 2 * PAGE_SIZE },
      { id: "main", extent: 1, offset: 12 * PAGE_SIZE },
    ]);
    const text = run("verify", directory).stdout;
    expect(text).toContain(`offset ${12 * PAGE_SIZE}, ${PAGE_SIZE} bytes, memory offset`);
    expect(text).toContain("metadata has 3 errors; 3 extents, 14 pages, 56 KiB read, 3 pages bad");
  });

  test("names damaged columns, and checks pages by the other one", () => {
    const directory = copy("bad-columns");
    overwrite(join(directory, "meta"), sectionAt(Section.PageCrcs) + 5);
    overwrite(onlyPageFile(directory), 12 * PAGE_SIZE);
    const one = JSON.parse(run("verify", directory, "--json").stdout);
    expect(sectionsOf(one.metadataErrors)).toEqual(["pageCrcs"]);
    expect(one.badBlocks).toMatchObject([{ offset: 12 * PAGE_SIZE, problem: "hash" }]);
    overwrite(join(directory, "meta"), sectionAt(Section.PageHashes) + 9);
    const both = JSON.parse(run("verify", directory, "--json").stdout);
    expect(sectionsOf(both.metadataErrors)).toEqual(["pageCrcs", "pageHashes"]);
    expect([both.ok, both.badBlocks]).toEqual([false, []]);
  });

  test("reports contents without extents or frames as an error", () => {
    for (const section of [Section.Extents, Section.Frames, Section.PageFiles]) {
      const directory = copy(`bad-map-${section}`);
      overwrite(join(directory, "meta"), sectionAt(section));
      const { metadataErrors, pages } = JSON.parse(run("verify", directory, "--json").stdout);
      expect([metadataErrors.length, pages]).toEqual([1, 0]);
    }
  });

  test("checks everything behind a damaged header or table", () => {
    const directory = copy("bad-header");
    // The id in the header; a number in the table's first entry; the first byte of the runs.
    for (const at of [16, HEADER_BYTES + 8, sectionAt(Section.Runs)])
      overwrite(join(directory, "meta"), at);
    overwrite(onlyPageFile(directory), 12 * PAGE_SIZE);
    const verdict = JSON.parse(run("verify", directory, "--json").stdout);
    expect(verdict.metadataErrors.map((text: string) => text.replace(/ \(.*/, ""))).toEqual([
      "Header checksum does not match",
      "Section table checksum does not match",
      expect.stringContaining("is out of place"),
      "Section checksum does not match",
    ]);
    expect([verdict.pages, verdict.badPages]).toEqual([14, 1]);
  });

  test("names a block that cannot be read, and checks the others", () => {
    const directory = copy("unreadable");
    overwrite(onlyPageFile(directory), 12 * PAGE_SIZE);
    const preload = join(root, "unreadable.ts");
    writeFileSync(
      preload,
      `import { setFaultHook } from ${JSON.stringify(join(import.meta.dir, "../../ffi/index.ts"))};
       const [start, end] = [${5 * PAGE_SIZE}, ${6 * PAGE_SIZE}];
       setFaultHook((call, fd, offset, lengthBytes) =>
         call === "pread" && lengthBytes >= ${PAGE_SIZE} && offset < end &&
           offset + lengthBytes > start ? { errno: 5 } : undefined);`,
    );
    const { stdout, exitCode } = Bun.spawnSync([
      process.execPath,
      "--preload",
      preload,
      program,
      "verify",
      directory,
      "--json",
    ]);
    expect(exitCode).toBe(1);
    expect(JSON.parse(stdout.toString())).toMatchObject({
      pages: 14,
      badPages: 2,
      badBlocks: [
        { extent: 0, offset: 5 * PAGE_SIZE, lengthBytes: PAGE_SIZE, problem: "EIO" },
        { extent: 1, offset: 12 * PAGE_SIZE, problem: "checksum" },
      ],
    });
  });

  test("finds any wrong byte of the metadata, and a file that was cut off", () => {
    const { size } = Bun.file(join(checkpoint, "meta"));
    for (const offset of [0, 9, 13, 40, 60, 70, Math.floor(size / 2), size - 1]) {
      const directory = copy(`bad-meta-${offset}`);
      overwrite(join(directory, "meta"), offset);
      const { exitCode, stdout, stderr } = run("verify", directory);
      expect([exitCode, stderr]).toEqual([1, ""]);
      expect(stdout).toStartWith("BAD       metadata: ");
    }
    const short = copy("short");
    truncateSync(onlyPageFile(short), 13 * PAGE_SIZE);
    expect(run("verify", short)).toMatchObject({
      exitCode: 1,
      stdout: expect.stringContaining(`got ${13 * PAGE_SIZE}`),
    });
    expect(JSON.parse(run("verify", short, "--json").stdout)).toMatchObject({
      pages: 14,
      badBlocks: [
        { extent: 2, offset: 13 * PAGE_SIZE, lengthBytes: PAGE_SIZE, problem: "truncated" },
      ],
    });
    rmSync(onlyPageFile(short));
    expect(run("verify", short)).toMatchObject({
      exitCode: 1,
      stdout: expect.stringContaining("missing"),
    });
  });
});
