/** `pgalloc map DIR --out FILE.html`: shows a checkpoint as one self-contained page. */
import { closeSync, openSync, readSync, statSync, writeFileSync } from "node:fs";
import { basename, resolve } from "node:path";
import {
  type ExtentRows,
  type FileMap,
  KIND_NAMES,
  type MapModel,
  RUN_STATES,
} from "../map/model.ts";
import { quote } from "../../ffi/index.ts";
import { renderPage } from "../map/page.ts";
import { isRemote } from "../remote/place.ts";
import { CHUNK_SIZE, HUGE_PAGE_SIZE } from "../pages/units.ts";
import { parseArguments, UsageError } from "./arguments.ts";
import {
  type CheckpointDescription,
  checkFormat,
  type MemoryDescription,
  nameOfContent,
  openAnyCheckpoint,
} from "./checkpoint-reader.ts";
import { print } from "./print.ts";

const HTML_BEGINNING = "<!doctype html>";

export async function map(args: string[]): Promise<number> {
  const { values, positionals } = parseArguments(
    args,
    { out: { type: "string" }, format: { type: "string" } },
    ["DIR"],
  );
  if (values.out === undefined) throw new UsageError("Expected --out FILE.html");
  const directory = positionals[0]!;
  if (isRemote(directory))
    throw new TypeError(
      `Expected DIR to be a directory, got ${quote(directory)}: bring it here with pgalloc copy`,
    );
  using checkpoint = openAnyCheckpoint(directory, checkFormat(values.format));
  requireReplaceable(values.out);
  writeFileSync(values.out, renderPage(modelOfCheckpoint(checkpoint, directory)));
  print(`wrote ${values.out}`);
  return 0;
}

/** @throws {RangeError} for a file that is no HTML, such as one of the checkpoint */
function requireReplaceable(path: string): void {
  const status = statSync(path, { throwIfNoEntry: false });
  if (status === undefined || !status.isFile() || status.size === 0) return;
  const beginning = Buffer.alloc(HTML_BEGINNING.length);
  const fd = openSync(path, "r");
  try {
    readSync(fd, beginning);
  } finally {
    closeSync(fd);
  }
  if (beginning.toString("latin1").toLowerCase() !== HTML_BEGINNING)
    throw new RangeError(
      `Expected --out to be a new file, or an HTML file to replace, got ${quote(path)}`,
    );
}

export function modelOfCheckpoint(checkpoint: CheckpointDescription, directory: string): MapModel {
  const { pageSize, contents, memories } = checkpoint;
  return {
    title: `checkpoint ${basename(resolve(directory))}`,
    isLive: false,
    pageBytes: pageSize,
    unitPages: HUGE_PAGE_SIZE / pageSize,
    chunkPages: CHUNK_SIZE / pageSize,
    states: RUN_STATES,
    kinds: KIND_NAMES,
    contents: contents.map((_, index) => nameOfContent(contents, index)),
    codecs: ["raw", "lz4", "zstd"],
    files: memories.map((memory) => mapOf(memory, CHUNK_SIZE / pageSize)),
  };
}

function mapOf({ id, chunkHuge, runs, pageMap }: MemoryDescription, chunkPages: number): FileMap {
  return {
    name: id ?? "main",
    sizePages: chunkHuge.length * chunkPages,
    chunkHuge: Array.from(chunkHuge),
    runs: {
      start: Array.from(runs.start),
      length: Array.from(runs.length),
      state: runs.state.map((state) => RUN_STATES.indexOf(state)),
      kind: Array.from(runs.kind),
      group: Array.from(runs.group),
      refs: Array.from(runs.refs),
    },
    extents: extentsOf(pageMap),
  };
}

function extentsOf({ extents, frames }: MemoryDescription["pageMap"]): ExtentRows {
  const rows = Array.from(extents.frame);
  return {
    start: Array.from(extents.start),
    length: Array.from(extents.length),
    content: rows.map((frame) => frames.content[frame]!),
    offset: rows.map((frame) => frames.offset[frame]!),
    storedBytes: rows.map((frame) => frames.storedBytes[frame]!),
    codec: rows.map((frame) => frames.codec[frame]!),
  };
}
