/** `pgalloc inspect DIR`: what a checkpoint holds, for people or as JSON. Reads the metadata, not the page contents. */
import { MemoryKind } from "../pages/units.ts";
import { parseArguments } from "./arguments.ts";
import { formatBytes } from "./bytes.ts";
import {
  type CheckpointDescription,
  checkFormat,
  type MemoryDescription,
  openAnyCheckpoint,
} from "./checkpoint-reader.ts";

/** One MemoryFile of the checkpoint. Sizes in bytes. */
interface MemorySummary {
  readonly id: string | null;
  readonly usedBytes: number;
  readonly contentBytes: number;
  readonly userDataBytes: number | null;
}

/** Sizes in bytes; what is not in `memories` is of all MemoryFiles together. */
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
  readonly hasChecksums: boolean;
  readonly userDataBytes: number | null;
  readonly bytesByKind: Readonly<Record<string, number>>;
  readonly bytesByGroup: Readonly<Record<string, number>>;
}

export async function inspect(args: string[]): Promise<number> {
  const { values, positionals } = parseArguments(
    args,
    { json: { type: "boolean" }, list: { type: "boolean" }, format: { type: "string" } },
    ["DIR, the checkpoint's directory"],
  );
  const directory = positionals[0]!;
  using checkpoint = openAnyCheckpoint(directory, checkFormat(values.format));
  const summary = summarize(directory, checkpoint);
  const rows = values.list === true ? listRows(checkpoint) : undefined;
  if (values.json === true) console.log(JSON.stringify({ ...summary, ...rows }, null, 2));
  else
    console.log(
      [describe(summary), ...(rows === undefined ? [] : [describeRows(rows)])].join("\n"),
    );
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
    extents: total(({ extents }) => extents.start.length),
    contentBytes: total(({ extents }) => sum(extents.length)) * pageSize,
    hasChecksums: checkpoint.checksums !== null,
    userDataBytes: userData.length === 0 ? null : sum(userData),
    bytesByKind,
    bytesByGroup,
  };
}

function summarizeMemory(
  { id, runs, extents, userDataBytes }: MemoryDescription,
  pageSize: number,
): MemorySummary {
  const usedPages = runs.state.reduce(
    (pages, state, i) => pages + (state === "used" ? runs.length[i]! : 0),
    0,
  );
  return {
    id,
    usedBytes: usedPages * pageSize,
    contentBytes: sum(extents.length) * pageSize,
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
      `${chunks.small + chunks.huge} of 1 GiB: ${chunks.small} for small pages, ${chunks.huge} for huge pages`,
    ],
    ["used", `${formatBytes(usedBytes)}; ${summary.runs} runs in all`],
    ["sub-released", formatBytes(summary.subReleasedBytes)],
    ["waste", formatBytes(summary.wasteBytes)],
    [
      "references",
      `at most ${summary.maxReferences} a page; ${formatBytes(sharedBytes)} have more than one`,
    ],
    [
      "contents",
      `${formatBytes(contentBytes)} in ${summary.extents} extents; ${formatBytes(usedBytes - contentBytes)} are zero`,
    ],
    ["checksums", summary.hasChecksums ? "one a page" : "none in this format"],
    ["user data", userDataBytes === null ? "none" : formatBytes(userDataBytes)],
    ["by kind", sizes(summary.bytesByKind)],
    ["by group", sizes(summary.bytesByGroup)],
    ...summary.memories.map(({ id, usedBytes, contentBytes }): [string, string] => [
      "memory file",
      `${id === null ? "without id" : JSON.stringify(id)}: ${formatBytes(usedBytes)} used, ${formatBytes(contentBytes)} contents`,
    ]),
  ];
  return lines.map(([name, text]) => `${name.padEnd(14)}${text}`).join("\n");
}

/** Byte offsets in the MemoryFile with that id; `offset` is in the file of page contents. */
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
  readonly extentList: readonly { id: string | null; start: number; end: number; offset: number }[];
}

function listRows({ memories, pageSize }: CheckpointDescription): Rows {
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
    extentList: memories.flatMap(({ id, extents }) =>
      Array.from(extents.offset, (offset, i) => ({ id, ...bounds(extents, i), offset })),
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
      ({ id, start, end, offset }) => `  ${nameOf(id)}[${start}, ${end})  at ${offset}`,
    ),
  ].join("\n");
}
