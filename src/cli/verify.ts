/**
 * `pgalloc verify DIR|URL`: checks every section of the metadata, and every page of the contents
 * against its checksum and its hash. Names every bad section and every bad block, and exits with 1
 * if there is any. Damage in one part does not hide other damage. Only a MemoryFile whose extents
 * or frames are damaged cannot be checked.
 */
import { crc32, hashPage } from "../checkpoint/format.ts";
import { parseArguments } from "./arguments.ts";
import { count } from "../data/describe.ts";
import { shownPlace } from "../http/shown-url.ts";
import { formatBytes } from "./bytes.ts";
import { withLocalCopy } from "./local-copy.ts";
import { S3_FLAGS, s3Of } from "./remote-arguments.ts";
import {
  type CheckableContents,
  checkFormat,
  type Examination,
  examineAnyCheckpoint,
  nameOfContent,
} from "./checkpoint-reader.ts";
import { PageReader } from "./page-reader.ts";
import { type Expected, readExpected } from "./expected-pages.ts";
import { print } from "./print.ts";

/** Adjacent bad pages of one extent. Offsets in bytes. */
interface BadBlock {
  /** The MemoryFile's id; null if the format has none, or if it is damaged. */
  readonly id: string | null;
  readonly extent: number;
  /** The page file. */
  readonly file: string;
  /** Offset in the page file: of the page, or of the compressed frame that contains it. */
  readonly offset: number;
  readonly lengthBytes: number;
  readonly memoryOffset: number;
  /** The problem, or the error's code if reading failed. */
  readonly problem: string;
}

interface Verdict {
  readonly directory: string;
  readonly ok: boolean;
  /** Problems of the metadata, and of the files' ids and sizes. */
  readonly metadataErrors: readonly string[];
  readonly format: string;
  /** How much was checked. */
  readonly extents: number;
  readonly frames: number;
  readonly compressedFrames: number;
  readonly pages: number;
  readonly bytes: number;
  readonly hasChecksums: boolean;
  readonly badPages: number;
  readonly badBlocks: readonly BadBlock[];
}

const INDENT = 10;

export async function verify(args: string[]): Promise<number> {
  const { values, positionals } = parseArguments(
    args,
    { json: { type: "boolean" }, format: { type: "string" }, ...S3_FLAGS },
    ["DIR, the checkpoint's directory or URL"],
  );
  const where = positionals[0]!;
  const format = checkFormat(values.format);
  const copying = { s3: s3Of(values), contents: true };
  const verdict = await withLocalCopy(where, copying, (directory) => ({
    ...verifyCheckpoint(directory, format),
    directory: shownPlace(where),
  }));
  if (values.json === true) print(JSON.stringify(verdict, null, 2));
  else report(verdict);
  return verdict.ok ? 0 : 1;
}

function verifyCheckpoint(directory: string, format: ReturnType<typeof checkFormat>): Verdict {
  using examination = examineAnyCheckpoint(directory, format);
  const { contents, checkable, hasChecksums } = examination;
  const problems = [...examination.problems];
  const badBlocks: BadBlock[] = [];
  const counts = { extents: 0, frames: 0, compressedFrames: 0, pages: 0 };
  using reader = new PageReader(contents);
  for (const file of checkable) {
    const expected = readExpected(file, contents[0], (problem) => problems.push(problem));
    counts.pages += verifyFile(file, expected, { examination, reader, badBlocks });
    counts.extents += file.pageMap.extents.start.length;
    counts.frames += file.pageMap.frames.codec.length;
    counts.compressedFrames += file.pageMap.frames.codec.filter((codec) => codec !== 0).length;
  }
  const pageBytes = reader.pageBytes;
  return {
    directory,
    ok: problems.length === 0 && badBlocks.length === 0,
    metadataErrors: problems,
    format: examination.format,
    ...counts,
    bytes: counts.pages * pageBytes,
    hasChecksums,
    badPages: badBlocks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0) / pageBytes,
    badBlocks,
  };
}

interface Verification {
  readonly examination: Examination;
  readonly reader: PageReader;
  readonly badBlocks: BadBlock[];
}

/** Checks every page of a MemoryFile. Returns how many it has. */
function verifyFile(
  { id, pageMap }: CheckableContents,
  expected: Expected,
  { examination, reader, badBlocks }: Verification,
): number {
  const { extents, frames } = pageMap;
  const { hashSeed, contents } = examination;
  const { pageBytes } = reader;
  let rank = 0;
  for (let extent = 0; extent < extents.start.length; extent++) {
    const row = extents.frame[extent]!;
    for (let i = 0; i < extents.length[extent]!; i++, rank++) {
      const framePage = extents.framePage[extent]! + i;
      const found = reader.read(frames, row, framePage);
      const problem = typeof found === "string" ? found : judge(found, rank, expected, hashSeed);
      if (problem === undefined) continue;
      const isRaw = frames.codec[row] === 0;
      add(badBlocks, {
        id,
        extent,
        file: nameOfContent(contents, frames.content[row]!),
        offset: frames.offset[row]! + (isRaw ? framePage * pageBytes : 0),
        lengthBytes: pageBytes,
        memoryOffset: (extents.start[extent]! + i) * pageBytes,
        problem,
      });
    }
  }
  return rank;
}

function judge(
  page: Uint8Array,
  rank: number,
  { crcs, hashes }: Expected,
  hashSeed: number,
): string | undefined {
  const crc = crcs?.[rank];
  const hash = hashes?.[rank];
  if (crc !== undefined && !Number.isNaN(crc) && crc32(page) !== crc) return "checksum";
  return hash !== undefined && hash !== null && hashPage(page, hashSeed) !== hash
    ? "hash"
    : undefined;
}

/** Joins a bad page to the block before it, if that ends where it begins. */
function add(blocks: BadBlock[], page: BadBlock): void {
  const last = blocks.at(-1);
  const follows =
    last !== undefined &&
    last.id === page.id &&
    last.extent === page.extent &&
    last.problem === page.problem;
  if (follows && last.memoryOffset + last.lengthBytes === page.memoryOffset) {
    blocks[blocks.length - 1] = { ...last, lengthBytes: last.lengthBytes + page.lengthBytes };
  } else blocks.push(page);
}

function report(verdict: Verdict): void {
  const bad = "BAD".padEnd(INDENT);
  for (const message of verdict.metadataErrors) print(`${bad}metadata: ${message}`);
  for (const {
    id,
    extent,
    file,
    offset,
    lengthBytes,
    memoryOffset,
    problem,
  } of verdict.badBlocks) {
    const owner = id === null ? "" : ` of ${JSON.stringify(id)}`;
    const place = `extent ${extent}, ${file} offset ${offset}, ${lengthBytes} bytes`;
    print(`${bad}${place}, memory offset ${memoryOffset}${owner}: ${problem}`);
  }
  const { format, extents, frames, compressedFrames, pages, bytes, badPages } = verdict;
  const { hasChecksums, ok, directory, metadataErrors } = verdict;
  print(`${ok ? "ok".padEnd(INDENT) : bad}${directory} (${format})`);
  const indent = " ".repeat(INDENT);
  const metadata =
    metadataErrors.length === 0
      ? "metadata is valid"
      : `metadata has ${count(metadataErrors.length, "error")}`;
  const read = `${formatBytes(bytes)} read, ${count(badPages, "page")} bad`;
  const found = `${count(extents, "extent")}, ${count(pages, "page")}`;
  print(`${indent}${metadata}; ${found}, ${read}`);
  if (compressedFrames > 0)
    print(`${indent}${compressedFrames} of ${frames} frames are compressed`);
  if (!hasChecksums)
    print(`${indent}this format has no checksums: contents are there, right or wrong`);
}
