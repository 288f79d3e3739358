/**
 * `pgalloc verify DIR`: every section of the metadata and every page of the contents against its checksum. Every bad block
 * is named, not only the first; the exit code is 1 if there is any.
 */
import { readSync } from "node:fs";
import { crc32 } from "../checkpoint/format.ts";
import { CorruptCheckpointError } from "../errors.ts";
import { parseArguments } from "./arguments.ts";
import { formatBytes } from "./bytes.ts";
import { type CheckpointDescription, checkFormat, type MemoryDescription, openAnyCheckpoint } from "./checkpoint-reader.ts";

/** Adjacent bad pages of one extent. Bytes. */
interface BadBlock {
  /** The MemoryFile's; null in a format that has none. */
  readonly id: string | null;
  readonly extent: number;
  /** In the file of page contents. */
  readonly offset: number;
  readonly lengthBytes: number;
  /** In memory. */
  readonly memoryOffset: number;
  readonly problem: "checksum" | "truncated";
}

interface Verdict {
  readonly directory: string;
  readonly ok: boolean;
  /** What is wrong with the metadata; then nothing else can be looked at. */
  readonly metadataError: string | null;
  readonly format: string | null;
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
  const { values, positionals } = parseArguments(args, { json: { type: "boolean" }, format: { type: "string" } }, [
    "DIR, the checkpoint's directory",
  ]);
  const verdict = verifyCheckpoint(positionals[0]!, checkFormat(values.format));
  if (values.json === true) console.log(JSON.stringify(verdict, null, 2));
  else report(verdict);
  return verdict.ok ? 0 : 1;
}

function verifyCheckpoint(directory: string, format: ReturnType<typeof checkFormat>): Verdict {
  const nothing = { directory, ok: false, format: null, extents: 0, pages: 0, bytes: 0, hasChecksums: false, badPages: 0 };
  let opened: CheckpointDescription;
  try {
    opened = openAnyCheckpoint(directory, format);
  } catch (error) {
    if (!(error instanceof CorruptCheckpointError)) throw error;
    return { ...nothing, metadataError: error.message, badBlocks: [] };
  }
  using checkpoint = opened;
  const { pages, badBlocks } = verifyPages(checkpoint);
  const badBytes = badBlocks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  return {
    directory,
    ok: badBlocks.length === 0,
    metadataError: null,
    format: checkpoint.format,
    extents: checkpoint.memories.reduce((sum, { extents }) => sum + extents.start.length, 0),
    pages,
    bytes: pages * checkpoint.pageSize,
    hasChecksums: checkpoint.checksums !== null,
    badPages: badBytes / checkpoint.pageSize,
    badBlocks,
  };
}

function verifyPages(checkpoint: CheckpointDescription): { pages: number; badBlocks: BadBlock[] } {
  const badBlocks: BadBlock[] = [];
  let pages = 0;
  for (const memory of checkpoint.memories) pages = verifyMemory(checkpoint, memory, pages, badBlocks);
  return { pages, badBlocks };
}

/** `content` counts the pages of contents before this file's; returns those up to its end. */
function verifyMemory(checkpoint: CheckpointDescription, memory: MemoryDescription, content: number, bad: BadBlock[]): number {
  const { pageSize, checksums, pagesFd } = checkpoint;
  const { id, extents } = memory;
  const buffer = new Uint8Array(READ_BYTES);
  const pagesPerRead = READ_BYTES / pageSize;
  let at = content;
  for (let extent = 0; extent < extents.start.length; extent++) {
    for (let done = 0; done < extents.length[extent]!; done += pagesPerRead) {
      const count = Math.min(pagesPerRead, extents.length[extent]! - done);
      const offset = extents.offset[extent]! + done * pageSize;
      const bytes = buffer.subarray(0, readFully(pagesFd, buffer.subarray(0, count * pageSize), offset));
      for (let page = 0; page < count; page++, at++) {
        const problem = judge(bytes.subarray(page * pageSize, (page + 1) * pageSize), pageSize, checksums?.[at]);
        if (problem === undefined) continue;
        const memoryOffset = (extents.start[extent]! + done + page) * pageSize;
        add(bad, { id, extent, offset: offset + page * pageSize, lengthBytes: pageSize, memoryOffset, problem });
      }
    }
  }
  return at;
}

function judge(page: Uint8Array, pageSize: number, checksum: number | undefined): BadBlock["problem"] | undefined {
  if (page.byteLength < pageSize) return "truncated";
  return checksum === undefined || crc32(page) === checksum ? undefined : "checksum";
}

function readFully(fd: number, buffer: Uint8Array, offset: number): number {
  let done = 0;
  while (done < buffer.byteLength) {
    const moved = readSync(fd, buffer, done, buffer.byteLength - done, offset + done);
    if (moved === 0) break;
    done += moved;
  }
  return done;
}

/** Joins a bad page to the block before it, if that ends where it begins. */
function add(blocks: BadBlock[], page: BadBlock): void {
  const last = blocks.at(-1);
  const follows = last !== undefined && last.id === page.id && last.extent === page.extent && last.problem === page.problem;
  if (follows && last.offset + last.lengthBytes === page.offset) {
    blocks[blocks.length - 1] = { ...last, lengthBytes: last.lengthBytes + page.lengthBytes };
  } else blocks.push(page);
}

function report(verdict: Verdict): void {
  if (verdict.metadataError !== null) {
    console.log(`${"BAD".padEnd(INDENT)}metadata: ${verdict.metadataError}`);
    return;
  }
  for (const { id, extent, offset, lengthBytes, memoryOffset, problem } of verdict.badBlocks) {
    console.log(
      `${"BAD".padEnd(INDENT)}extent ${extent}, offset ${offset}, ${lengthBytes} bytes, memory offset ${memoryOffset}${id === null ? "" : ` of ${JSON.stringify(id)}`}: ${problem}`,
    );
  }
  const { format, extents, pages, bytes, badPages, hasChecksums, ok, directory } = verdict;
  console.log(`${(ok ? "ok" : "BAD").padEnd(INDENT)}${directory} (${format})`);
  const indent = " ".repeat(INDENT);
  console.log(
    `${indent}metadata is valid; ${extents} extents, ${pages} pages, ${formatBytes(bytes)} read, ${badPages} pages bad`,
  );
  if (!hasChecksums)
    console.log(`${indent}this format has no checksums: contents are all there, whether they are right is not known`);
}
