/**
 * `pgalloc verify DIR`: every section of the metadata and every page of the contents against its checksum. Every bad section and
 * every bad block is named, not only the first; the exit code is 1 if there is any. Damage in one part does not keep the others
 * from being looked at: only without checksums, or without the pages file, are there no contents to check.
 */
import { addressOf, errnoCode, readAt } from "../../ffi/index.ts";
import { crc32 } from "../checkpoint/format.ts";
import { parseArguments } from "./arguments.ts";
import { formatBytes } from "./bytes.ts";
import { checkFormat, type Examination, examineAnyCheckpoint } from "./checkpoint-reader.ts";

/** Contents that follow one another in the pages file: those of an extent, or of nobody knows whom. Bytes; null: not known. */
interface Contents {
  /** The MemoryFile's; also null in a format that has none. */
  readonly id: string | null;
  readonly extent: number | null;
  /** In the file of page contents. */
  readonly offset: number;
  readonly lengthBytes: number;
  /** In memory. */
  readonly memoryOffset: number | null;
}

/** Adjacent bad pages of one extent. */
interface BadBlock extends Contents {
  /** Or the error's code, where reading failed. */
  readonly problem: string;
}

interface Verdict {
  readonly directory: string;
  readonly ok: boolean;
  /** What is wrong with the metadata and the files' sizes. */
  readonly metadataErrors: readonly string[];
  readonly format: string;
  /** Extents and pages that were looked at. */
  readonly extents: number;
  readonly pages: number;
  readonly bytes: number;
  readonly hasChecksums: boolean;
  readonly badPages: number;
  readonly badBlocks: readonly BadBlock[];
}

const READ_BYTES = 1024 * 1024;
const INDENT = 10;

export async function verify(args: string[]): Promise<number> {
  const { values, positionals } = parseArguments(
    args,
    { json: { type: "boolean" }, format: { type: "string" } },
    ["DIR, the checkpoint's directory"],
  );
  const verdict = verifyCheckpoint(positionals[0]!, checkFormat(values.format));
  if (values.json === true) console.log(JSON.stringify(verdict, null, 2));
  else report(verdict);
  return verdict.ok ? 0 : 1;
}

function verifyCheckpoint(directory: string, format: ReturnType<typeof checkFormat>): Verdict {
  using examination = examineAnyCheckpoint(directory, format);
  const { problems, checksums, pagesFd, pageSize } = examination;
  const all = contentsOf(examination);
  const badBlocks: BadBlock[] = [];
  let pages = 0;
  for (const contents of all) {
    verifyContents(
      contents,
      { fd: pagesFd!, pageSize, checksums: checksums?.subarray(pages) },
      badBlocks,
    );
    pages += contents.lengthBytes / pageSize;
  }
  return {
    directory,
    ok: problems.length === 0 && badBlocks.length === 0,
    metadataErrors: problems,
    format: examination.format,
    extents: all.filter(({ extent }) => extent !== null).length,
    pages,
    bytes: pages * pageSize,
    hasChecksums: checksums !== null,
    badPages: badBlocks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0) / pageSize,
    badBlocks,
  };
}

/** Every extent's contents; those of the whole pages file, where its extents are not known; none, where nothing can be told. */
function contentsOf({ checkpoint, checksums, pagesFd, pageSize }: Examination): Contents[] {
  if (pagesFd === null) return [];
  if (checkpoint !== null) {
    return checkpoint.memories.flatMap(({ id, extents }) =>
      Array.from(extents.start, (start, extent) => ({
        id,
        extent,
        offset: extents.offset[extent]!,
        lengthBytes: extents.length[extent]! * pageSize,
        memoryOffset: start * pageSize,
      })),
    );
  }
  if (checksums === null || checksums.length === 0) return [];
  return [
    {
      id: null,
      extent: null,
      offset: 0,
      lengthBytes: checksums.length * pageSize,
      memoryOffset: null,
    },
  ];
}

interface PagesSource {
  readonly fd: number;
  readonly pageSize: number;
  /** Of the contents' pages, and more; undefined if the format has none. */
  readonly checksums: Uint32Array | undefined;
}

function verifyContents(
  contents: Contents,
  { fd, pageSize, checksums }: PagesSource,
  bad: BadBlock[],
): void {
  const { lengthBytes, offset } = contents;
  for (let done = 0; done < lengthBytes; done += READ_BYTES) {
    const bytes = Math.min(READ_BYTES, lengthBytes - done);
    const filled = readAt(fd, addressOf(buffer), bytes, offset + done);
    for (let at = 0; at < bytes; at += pageSize) {
      // Where a whole read fails some of its pages may be readable all the same.
      const end =
        filled >= 0
          ? Math.max(0, filled - at)
          : readAt(fd, addressOf(buffer) + at, pageSize, offset + done + at);
      const problem = judge(
        buffer.subarray(at, at + pageSize),
        end,
        checksums?.[(done + at) / pageSize],
      );
      if (problem !== undefined) add(bad, { ...pageAt(contents, done + at, pageSize), problem });
    }
  }
}

const buffer = new Uint8Array(new ArrayBuffer(READ_BYTES));

/** `filled`: bytes of the page that could be read, or more; or a negative error number. */
function judge(page: Uint8Array, filled: number, checksum: number | undefined): string | undefined {
  if (filled < 0) return errnoCode(-filled);
  if (filled < page.byteLength) return "truncated";
  return checksum === undefined || crc32(page) === checksum ? undefined : "checksum";
}

/** One page of contents, `at` bytes behind their beginning. */
function pageAt(contents: Contents, at: number, pageSize: number): Contents {
  const { offset, memoryOffset } = contents;
  const inMemory = memoryOffset === null ? null : memoryOffset + at;
  return { ...contents, offset: offset + at, lengthBytes: pageSize, memoryOffset: inMemory };
}

/** Joins a bad page to the block before it, if that ends where it begins. */
function add(blocks: BadBlock[], page: BadBlock): void {
  const last = blocks.at(-1);
  const follows =
    last !== undefined &&
    last.id === page.id &&
    last.extent === page.extent &&
    last.problem === page.problem;
  if (follows && last.offset + last.lengthBytes === page.offset) {
    blocks[blocks.length - 1] = { ...last, lengthBytes: last.lengthBytes + page.lengthBytes };
  } else blocks.push(page);
}

function report(verdict: Verdict): void {
  const bad = "BAD".padEnd(INDENT);
  for (const message of verdict.metadataErrors) console.log(`${bad}metadata: ${message}`);
  for (const { id, extent, offset, lengthBytes, memoryOffset, problem } of verdict.badBlocks) {
    const owner = id === null ? "" : ` of ${JSON.stringify(id)}`;
    const place = `${extent === null ? "" : `extent ${extent}, `}offset ${offset}, ${lengthBytes} bytes`;
    console.log(
      `${bad}${place}${memoryOffset === null ? "" : `, memory offset ${memoryOffset}`}${owner}: ${problem}`,
    );
  }
  const { format, extents, pages, bytes, badPages, hasChecksums, ok, directory, metadataErrors } =
    verdict;
  console.log(`${ok ? "ok".padEnd(INDENT) : bad}${directory} (${format})`);
  const indent = " ".repeat(INDENT);
  const metadata =
    metadataErrors.length === 0
      ? "metadata is valid"
      : `metadata has ${metadataErrors.length} errors`;
  console.log(
    `${indent}${metadata}; ${extents} extents, ${pages} pages, ${formatBytes(bytes)} read, ${badPages} pages bad`,
  );
  if (hasChecksums) return;
  if (metadataErrors.length > 0)
    console.log(`${indent}contents could not be checked: it is not known what they should be`);
  else
    console.log(
      `${indent}this format has no checksums: contents are all there, whether they are right is not known`,
    );
}
