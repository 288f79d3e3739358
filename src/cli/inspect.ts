/**
 * `pgalloc inspect DIR|URL`: describes a checkpoint as text or as JSON. Reads the metadata, not the
 * page contents.
 */
import { MemoryKind } from "../pages/units.ts";
import { parseArguments } from "./arguments.ts";
import { count } from "../data/describe.ts";
import { shownPlace } from "../http/shown-url.ts";
import { formatBytes } from "./bytes.ts";
import { withLocalCopy } from "./local-copy.ts";
import { S3_FLAGS, s3Of } from "./remote-arguments.ts";
import {
  type CheckpointDescription,
  checkFormat,
  type MemoryDescription,
  nameOfContent,
  openAnyCheckpoint,
} from "./checkpoint-reader.ts";
import { print } from "./print.ts";

/** One MemoryFile of the checkpoint. Sizes in bytes. */
interface MemorySummary {
  readonly id: string | null;
  readonly usedBytes: number;
  readonly contentBytes: number;
  readonly userDataBytes: number | null;
}

/** By CodecId. */
const CODEC_NAMES = ["raw", "lz4", "zstd"] as const;

/** Frames by codec, and the bytes that they take. */
interface FrameSummary {
  readonly raw: number;
  readonly lz4: number;
  readonly zstd: number;
  readonly storedBytes: number;
}

interface PageFileSummary {
  readonly bytes: number;
  /** Stored bytes of frames that are in use, in whole pages. */
  readonly frameBytes: number;
  /** Page contents that are in use. */
  readonly contentBytes: number;
}

/** Sizes in bytes. Values outside of `memories` are for all MemoryFiles together. */
interface Summary {
  readonly directory: string;
  readonly format: string;
  readonly version: number;
  readonly pageSize: number;
  readonly files: Readonly<Record<string, number>>;
  readonly memories: readonly MemorySummary[];
  readonly chunks: { readonly small: number; readonly huge: number };
  readonly runs: number;
  readonly usedBytes: number;
  readonly subReleasedBytes: number;
  readonly wasteBytes: number;
  readonly maxReferences: number;
  readonly sharedBytes: number;
  readonly extents: number;
  readonly contentBytes: number;
  readonly frames: FrameSummary;
  /** Files of page contents by name. gVisor's format has one. */
  readonly pageFiles: Readonly<Record<string, PageFileSummary>>;
  readonly hasChecksums: boolean;
  readonly userDataBytes: number | null;
  readonly bytesByKind: Readonly<Record<string, number>>;
  readonly bytesByGroup: Readonly<Record<string, number>>;
}

export async function inspect(args: string[]): Promise<number> {
  const { values, positionals } = parseArguments(
    args,
    {
      json: { type: "boolean" },
      list: { type: "boolean" },
      format: { type: "string" },
      ...S3_FLAGS,
    },
    ["DIR, the checkpoint's directory or URL"],
  );
  const where = positionals[0]!;
  const format = checkFormat(values.format);
  const copying = { s3: s3Of(values), contents: false };
  const [summary, rows] = await withLocalCopy(where, copying, (directory) => {
    using checkpoint = openAnyCheckpoint(directory, format);
    const rows = values.list === true ? listRows(checkpoint) : undefined;
    return [summarize(shownPlace(where), checkpoint), rows] as const;
  });
  if (values.json === true) print(JSON.stringify({ ...summary, ...rows }, null, 2));
  else print([describe(summary), ...(rows === undefined ? [] : [describeRows(rows)])].join("\n"));
  return 0;
}

function summarize(directory: string, checkpoint: CheckpointDescription): Summary {
  const { pageSize, memories } = checkpoint;
  const bytes = { used: 0, "sub-released": 0, waste: 0 };
  const bytesByKind: Record<string, number> = {};
  const bytesByGroup: Record<string, number> = {};
  let maxReferences = 0;
  let sharedBytes = 0;
  for (const { runs } of memories) {
    for (const [i, state] of runs.state.entries()) {
      const length = runs.length[i]! * pageSize;
      bytes[state] += length;
      if (state !== "used") continue;
      const kind = nameOfKind(runs.kind[i]!);
      bytesByKind[kind] = (bytesByKind[kind] ?? 0) + length;
      bytesByGroup[runs.group[i]!] = (bytesByGroup[runs.group[i]!] ?? 0) + length;
      maxReferences = Math.max(maxReferences, runs.refs[i]!);
      if (runs.refs[i]! > 1) sharedBytes += length;
    }
  }
  const total = (count: (memory: MemoryDescription) => number) => sum(memories.map(count));
  const huge = total(({ chunkHuge }) => sum(chunkHuge));
  const userData = [checkpoint, ...memories].flatMap(({ userDataBytes }) => userDataBytes ?? []);
  return {
    directory,
    format: checkpoint.format,
    version: checkpoint.version,
    pageSize,
    files: checkpoint.files,
    memories: memories.map((memory) => summarizeMemory(memory, pageSize)),
    chunks: { small: total(({ chunkHuge }) => chunkHuge.length) - huge, huge },
    runs: total(({ runs }) => runs.state.length),
    usedBytes: bytes.used,
    subReleasedBytes: bytes["sub-released"],
    wasteBytes: bytes.waste,
    maxReferences,
    sharedBytes,
    extents: total(({ pageMap }) => pageMap.extents.start.length),
    contentBytes: total(({ pageMap }) => sum(pageMap.extents.length)) * pageSize,
    frames: summarizeFrames(memories),
    pageFiles: summarizePageFiles(checkpoint),
    hasChecksums: checkpoint.hasChecksums,
    userDataBytes: userData.length === 0 ? null : sum(userData),
    bytesByKind,
    bytesByGroup,
  };
}

function summarizeFrames(memories: readonly MemoryDescription[]): FrameSummary {
  const counts = { raw: 0, lz4: 0, zstd: 0 };
  let storedBytes = 0;
  for (const { pageMap } of memories) {
    for (const codec of pageMap.frames.codec) counts[CODEC_NAMES[codec]!]++;
    storedBytes += sum(pageMap.frames.storedBytes);
  }
  return { ...counts, storedBytes };
}

function summarizePageFiles({
  memories,
  contents,
  pageSize,
}: CheckpointDescription): Record<string, PageFileSummary> {
  const files = contents.map(({ sizeBytes }) => ({
    bytes: sizeBytes,
    frameBytes: 0,
    contentBytes: 0,
  }));
  for (const { pageMap } of memories) {
    const { extents, frames } = pageMap;
    frames.content.forEach((content, row) => {
      files[content]!.frameBytes += Math.ceil(frames.storedBytes[row]! / pageSize) * pageSize;
    });
    extents.frame.forEach((row, i) => {
      files[frames.content[row]!]!.contentBytes += extents.length[i]! * pageSize;
    });
  }
  const named = files.map((file, i) => [nameOfContent(contents, i), file] as const);
  return Object.fromEntries(named.filter(([name], i) => i > 0 || name !== "meta"));
}

function summarizeMemory(
  { id, runs, pageMap, userDataBytes }: MemoryDescription,
  pageSize: number,
): MemorySummary {
  const usedPages = runs.state.reduce(
    (pages, state, i) => pages + (state === "used" ? runs.length[i]! : 0),
    0,
  );
  return {
    id,
    usedBytes: usedPages * pageSize,
    contentBytes: sum(pageMap.extents.length) * pageSize,
    userDataBytes,
  };
}

function sum(column: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < column.length; i++) total += column[i]!;
  return total;
}

function nameOfKind(kind: number): string {
  return Object.entries(MemoryKind).find(([, number]) => number === kind)?.[0] ?? String(kind);
}

function describe(summary: Summary): string {
  const sizes = (map: Readonly<Record<string, number>>) =>
    Object.entries(map)
      .map(([name, bytes]) => `${name} ${formatBytes(bytes)}`)
      .join(", ") || "none";
  const { chunks, sharedBytes, userDataBytes, contentBytes, usedBytes } = summary;
  const lines: [string, string][] = [
    ["checkpoint", summary.directory],
    [
      "format",
      `${summary.format}, version ${summary.version}, pages of ${formatBytes(summary.pageSize)}`,
    ],
    ["files", sizes(summary.files)],
    [
      "chunks",
      `${chunks.small + chunks.huge} of 1 GiB: ${chunks.small} for small pages, ${chunks.huge} ` +
        "for huge pages",
    ],
    ["used", `${formatBytes(usedBytes)}; ${count(summary.runs, "run")} in all`],
    ["sub-released", formatBytes(summary.subReleasedBytes)],
    ["waste", formatBytes(summary.wasteBytes)],
    [
      "references",
      `at most ${summary.maxReferences} a page; ${formatBytes(sharedBytes)} have more than one`,
    ],
    [
      "contents",
      `${formatBytes(contentBytes)} in ${count(summary.extents, "extent")}; ` +
        `${formatBytes(usedBytes - contentBytes)} are zero`,
    ],
    ["frames", describeFrames(summary.frames)],
    ...Object.entries(summary.pageFiles).map(([name, file]): [string, string] => [
      "page file",
      `${name}: ${formatBytes(file.bytes)}, of which ${formatBytes(file.frameBytes)} are in use`,
    ]),
    [
      "checksums",
      summary.hasChecksums ? "a CRC-32 and a hash for each page" : "none in this format",
    ],
    ["user data", userDataBytes === null ? "none" : formatBytes(userDataBytes)],
    ["by kind", sizes(summary.bytesByKind)],
    ["by group", sizes(summary.bytesByGroup)],
    ...summary.memories.map(({ id, usedBytes, contentBytes }): [string, string] => [
      "memory file",
      `${id === null ? "without id" : JSON.stringify(id)}: ${formatBytes(usedBytes)} used, ` +
        `${formatBytes(contentBytes)} contents`,
    ]),
  ];
  return lines.map(([name, text]) => `${name.padEnd(14)}${text}`).join("\n");
}

function describeFrames({ raw, lz4, zstd, storedBytes }: FrameSummary): string {
  const counts = Object.entries({ raw, lz4, zstd }).filter(([, count]) => count > 0);
  const text = counts.map(([codec, count]) => `${count} ${codec}`).join(", ") || "none";
  return `${text}; ${formatBytes(storedBytes)} stored`;
}

/**
 * Byte offsets in the MemoryFile with that id. `offset` is in the file of page contents: of the
 * extent, or of the compressed frame that contains it.
 */
interface Rows {
  readonly runList: readonly {
    id: string | null;
    start: number;
    end: number;
    state: string;
    refs: number;
    kind: number;
    group: number;
  }[];
  readonly extentList: readonly {
    id: string | null;
    start: number;
    end: number;
    file: string;
    offset: number;
    codec: string;
  }[];
}

function listRows({ memories, pageSize, contents }: CheckpointDescription): Rows {
  const bounds = (columns: { start: ArrayLike<number>; length: ArrayLike<number> }, i: number) => ({
    start: columns.start[i]! * pageSize,
    end: (columns.start[i]! + columns.length[i]!) * pageSize,
  });
  return {
    runList: memories.flatMap(({ id, runs }) =>
      runs.state.map((state, i) => ({
        id,
        ...bounds(runs, i),
        state,
        refs: runs.refs[i]!,
        kind: runs.kind[i]!,
        group: runs.group[i]!,
      })),
    ),
    extentList: memories.flatMap(({ id, pageMap: { extents, frames } }) =>
      Array.from(extents.frame, (row, i) => {
        const codec = CODEC_NAMES[frames.codec[row]!]!;
        const skipped = codec === "raw" ? extents.framePage[i]! * pageSize : 0;
        const file = nameOfContent(contents, frames.content[row]!);
        return { id, ...bounds(extents, i), file, offset: frames.offset[row]! + skipped, codec };
      }),
    ),
  };
}

function describeRows({ runList, extentList }: Rows): string {
  const nameOf = (id: string | null) => (id === null ? "" : `${id} `);
  return [
    "runs",
    ...runList.map(({ id, start, end, state, refs, kind, group }) => {
      const owner =
        state === "used" ? `  refs ${refs}  kind ${nameOfKind(kind)}  group ${group}` : "";
      return `  ${nameOf(id)}[${start}, ${end})  ${state}${owner}`;
    }),
    "extents",
    ...extentList.map(
      ({ id, start, end, file, offset, codec }) =>
        `  ${nameOf(id)}[${start}, ${end})  at ${offset} of ${file}  ${codec}`,
    ),
  ].join("\n");
}
