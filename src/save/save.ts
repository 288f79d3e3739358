/**
 * Saving: the allocators' runs at one instant; then threads find and store contents, and the
 * manifest is committed. The program goes on meanwhile. What it writes during the save may or may
 * not be in the checkpoint, page by page.
 */
import type { Compression } from "../codec/codec.ts";
import { codecFor, isCompression } from "../codec/open-codec.ts";
import { decodeManifest } from "../checkpoint/decode.ts";
import { type EncodedManifest, encodeManifest } from "../checkpoint/encode.ts";
import type { Manifest, PageFile, RunColumns, SavedFile } from "../checkpoint/format.ts";
import { checkLimit } from "../checkpoint/limits.ts";
import { hex } from "../checkpoint/page-file.ts";
import { absolutePath, closing } from "../checkpoint/staging.ts";
import { Word } from "../control/control.ts";
import type { FileCore } from "../core/core.ts";
import { PAGE_SIZE, PAGES_PER_CHUNK } from "../pages/units.ts";
import type { S3Options } from "../http/s3-options.ts";
import { isRemote } from "../remote/place.ts";
import { noteBase } from "./base.ts";
import { buildMap, forEachStored, type UsedRuns } from "./build-map.ts";
import { collectRuns, usedRuns } from "./collect.ts";
import { openSink } from "./open-sink.ts";
import { FrameList } from "./frame-list.ts";
import { createTable, type FileTable } from "./save-table.ts";
import type { Sink } from "./sink.ts";
import {
  mostBytesOf,
  type SaveProgress,
  type WrittenPages,
  writeUsedPages,
} from "./write-pages.ts";

export interface SaveOptions {
  /** Stored beside the pages and given back as `userData`: the program's roots, its index. */
  readonly userData?: Uint8Array | undefined;
  /**
   * Do not write contents again that the checkpoint at the destination has. Default: true.
   */
  readonly incremental?: boolean | undefined;
  /** How page contents are stored. Default: "none" in directories, "zstd" in remote places. */
  readonly compression?: Compression | undefined;
  /**
   * Accepted for gVisor's sake. Zero pages are never stored, committed or not: finding them takes
   * no I/O.
   */
  readonly excludeCommittedZeroPages?: boolean | undefined;
  /** How to reach S3, if the destination is an `s3://` URL. Default: the AWS_* variables. */
  readonly s3?: S3Options | undefined;
  /** Ends the save; the destination is as it was. */
  readonly signal?: AbortSignal | undefined;
  /** Called now and then with bytes of page contents. An error that it throws ends the save. */
  readonly onProgress?: ((progress: SaveProgress) => void) | undefined;
}

/** What a save did. Sizes in bytes, of all its files together. */
export interface SaveReport {
  readonly directory: string;
  /** The checkpoint's: 16 hexadecimal digits. */
  readonly id: string;
  readonly usedBytes: number;
  /** Page contents in the checkpoint. */
  readonly pagesBytes: number;
  /** Bytes written to page files. */
  readonly writtenBytes: number;
  /** Page contents that were not written, because the previous checkpoint has them. */
  readonly reusedBytes: number;
  /** Committed memory that held only zeros, and was not written. */
  readonly zeroBytes: number;
  readonly metaBytes: number;
  readonly extents: number;
  /** Page files of the checkpoint. */
  readonly pageFiles: number;
  readonly compression: CompressionReport;
  readonly durationMs: number;
}

/** What was compressed, of what this save wrote. */
export interface CompressionReport {
  readonly codec: Compression;
  readonly frames: number;
  /** The others are raw: compression would have saved less than 1/16. */
  readonly compressedFrames: number;
  readonly contentBytes: number;
  readonly storedBytes: number;
}

export interface SaveFile {
  /** Unique in the checkpoint. */
  readonly name: string;
  readonly core: FileCore;
  readonly userData: Uint8Array | null;
}

/** Default of `incremental`. */
const IS_INCREMENTAL = false;

/**
 * Saves the files as one checkpoint. Each stays mapped until the save has ended, even if it is
 * destroyed meanwhile. Arguments are resolved before this returns.
 */
export function saveFiles(
  files: readonly SaveFile[],
  directory: string,
  options: SaveOptions,
): Promise<SaveReport> {
  const { incremental = IS_INCREMENTAL, userData = null } = options;
  const { compression = isRemote(directory) ? "zstd" : "none" } = options;
  checkOptions(files, { incremental, compression, userData });
  const plan: Plan = {
    files,
    directory,
    where: isRemote(directory) ? directory : absolutePath(directory),
    s3: options.s3,
    userData,
    incremental,
    compression,
    signal: options.signal,
    onProgress: options.onProgress,
  };
  const work = saveWhenLoaded(plan);
  for (const { core } of files) core.hold(work);
  return work;
}

interface Plan {
  readonly files: readonly SaveFile[];
  /** As given. */
  readonly directory: string;
  /** The same, with an absolute path. */
  readonly where: string;
  readonly s3: S3Options | undefined;
  readonly userData: Uint8Array | null;
  readonly incremental: boolean;
  readonly compression: Compression;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: SaveOptions["onProgress"];
}

/** @throws {TypeError} {RangeError} {CodecUnavailableError} */
function checkOptions(
  files: readonly SaveFile[],
  { incremental, compression, userData }: Pick<Plan, "incremental" | "compression" | "userData">,
): void {
  if (typeof incremental !== "boolean")
    throw new TypeError(`Expected incremental to be a boolean, got ${String(incremental)}`);
  if (!isCompression(compression))
    throw new TypeError(
      `Expected compression to be "none", "lz4" or "zstd", got ${String(compression)}`,
    );
  codecFor(compression);
  const userDataBytes = [userData, ...files.map((file) => file.userData)].reduce(
    (sum, bytes) => sum + (bytes?.byteLength ?? 0),
    0,
  );
  checkLimit("files", "files", files.length);
  checkLimit("userDataBytes", "bytes of userData", userDataBytes);
}

async function saveWhenLoaded(plan: Plan): Promise<SaveReport> {
  for (const { core } of plan.files) {
    if (core.mayMissPages)
      await core.loader!.awaitLoad(0, core.words[Word.SizePages]!, false, plan.signal);
    await core.releaser.released();
  }
  for (const { core } of plan.files) core.requireLive("saveTo()");
  const { where, signal, s3, incremental } = plan;
  const sink = await openSink(where, { s3, signal, wantsBase: incremental });
  return await closing(sink, () => new Save(plan, sink).run());
}

/** What is saved of one MemoryFile. */
interface FileState {
  readonly file: SaveFile;
  readonly chunkHuge: Uint8Array;
  readonly runs: RunColumns;
  readonly used: UsedRuns;
  readonly usedPages: number;
  readonly table: FileTable;
}

/** One save into an opened sink. */
class Save {
  private readonly startedAt = performance.now();
  private readonly id = randomId();
  private readonly plan: Plan;
  private readonly sink: Sink;
  private readonly hashSeed: number;
  private readonly frames = new FrameList();
  /** The base's page files, then the new one. */
  private readonly pageFiles: PageFile[];

  constructor(plan: Plan, sink: Sink) {
    this.plan = plan;
    this.sink = sink;
    const base = plan.incremental ? sink.base : null;
    this.hashSeed = base?.manifest.hashSeed ?? crypto.getRandomValues(new Uint32Array(1))[0]!;
    this.pageFiles = [...(base?.manifest.pageFiles ?? [])];
  }

  async run(): Promise<SaveReport> {
    const { plan, sink } = this;
    const states = plan.files.map((file) => this.collect(file));
    const newFile = randomId();
    const written = await this.write(states, newFile);
    const pageFile = { id: newFile, sizeBytes: written.writtenBytes };
    this.frames.addRows(this.pageFiles.length, written.frames, written.frameCount);
    this.pageFiles.push(pageFile);
    const manifest = this.compose(states);
    const encoded = encodeChecked(manifest, `${sink.place}/meta`);
    plan.signal?.throwIfAborted();
    await sink.commit({
      id: this.id,
      manifest: encoded,
      written: manifest.pageFiles.includes(pageFile) ? pageFile : null,
      pageFiles: manifest.pageFiles,
    });
    return this.report(states, manifest, written, encoded);
  }

  private collect(file: SaveFile): FileState {
    const { chunkHuge, runs, usedPages } = collectRuns(file.core.allocator);
    const table = createTable(chunkHuge.length * PAGES_PER_CHUNK, true);
    const { base } = this.sink;
    if (this.plan.incremental && base !== null) noteBase(base, file.name, table, this.frames);
    return { file, chunkHuge, runs, used: usedRuns(runs), usedPages, table };
  }

  private async write(states: readonly FileState[], id: bigint): Promise<WrittenPages> {
    const { plan, sink, frames, hashSeed } = this;
    const sources = states.map(({ file, used, table }) => {
      const { fd, base } = file.core.mapping;
      return { control: file.core.words.buffer, fd, base, ...used, table: table.handle };
    });
    const isFull = frames.count === 0;
    const mostBytes = isFull ? sources.reduce((sum, source) => sum + mostBytesOf(source), 0) : 0;
    const description = await sink.beginPages(id, mostBytes);
    const { compression } = plan;
    const firstFrame = frames.count;
    return await writeUsedPages(
      { sources, hashSeed, compression, firstFrame, writtenBytes: 0, sink: description },
      plan,
    );
  }

  /** The manifest, with the page files that have live contents. */
  private compose(states: readonly FileState[]): Manifest<SavedFile> {
    const isLive = this.pageFiles.map(() => false);
    for (const { used, table } of states) {
      forEachStored(used, table, (_, frame) => {
        isLive[this.frames.pageFile[frame - 1]!] = true;
      });
    }
    let contents = 0;
    const contentOf = isLive.map((live) => (live ? ++contents : 0));
    return {
      id: this.id,
      hashSeed: this.hashSeed,
      pageFiles: this.pageFiles.filter((_, i) => isLive[i]),
      files: states.map(({ file: { name, userData }, chunkHuge, runs, used, table }) => ({
        name,
        chunkHuge,
        runs,
        userData,
        ...buildMap(used, table, this.frames, (pageFile) => contentOf[pageFile]!),
      })),
      userData: this.plan.userData,
    };
  }

  private report(
    states: readonly FileState[],
    { files, pageFiles }: Manifest<SavedFile>,
    written: WrittenPages,
    { lengthBytes }: EncodedManifest,
  ): SaveReport {
    const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
    return {
      directory: this.plan.directory,
      id: hex(this.id),
      usedBytes: sum(states.map(({ usedPages }) => usedPages)) * PAGE_SIZE,
      pagesBytes: sum(files.map(({ crcs }) => crcs.length)) * PAGE_SIZE,
      writtenBytes: written.writtenBytes,
      reusedBytes: written.reusedPages * PAGE_SIZE,
      zeroBytes: written.zeroPages * PAGE_SIZE,
      metaBytes: lengthBytes,
      extents: sum(files.map(({ pageMap }) => pageMap.extents.start.length)),
      pageFiles: pageFiles.length,
      compression: {
        codec: this.plan.compression,
        frames: written.frameCount,
        compressedFrames: written.frames.codec.subarray(0, written.frameCount).filter(Boolean)
          .length,
        contentBytes: written.writtenPages * PAGE_SIZE,
        storedBytes: written.writtenBytes,
      },
      durationMs: performance.now() - this.startedAt,
    };
  }
}

/** Encodes a manifest, and runs a load's own checks over it. */
function encodeChecked(manifest: Manifest<SavedFile>, path: string): EncodedManifest {
  const encoded = encodeManifest(manifest);
  decodeManifest(encoded.parts[0], encoded.lengthBytes, path);
  return encoded;
}

function randomId(): bigint {
  return crypto.getRandomValues(new BigUint64Array(1))[0]!;
}
