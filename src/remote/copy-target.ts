/** The destination of a copied checkpoint: a directory, or a prefix of a bucket. */
import { resolve } from "node:path";
import { closeFile } from "../../ffi/index.ts";
import { META, closeContents, openCheckpoint } from "../checkpoint/directory.ts";
import { refuseForeign } from "../checkpoint/foreign.ts";
import type { PageFile } from "../checkpoint/format.ts";
import { hex, pageFileName } from "../checkpoint/page-file.ts";
import { StagingDirectory, writeBytes } from "../checkpoint/staging.ts";
import { CorruptCheckpointError, NoCheckpointError, UnsupportedError } from "../errors/errors.ts";
import type { Bucket, UploadedPart } from "../http/bucket.ts";
import { endCache } from "./cache-origin.ts";
import type { CopySource } from "./copy-source.ts";
import { pagesKey } from "./keys.ts";
import { newestPublished, publish } from "./manifests.ts";
import { readManifest } from "./open-checkpoint.ts";
import { isRemote, openPlace, type PlaceOptions, type RemotePlace } from "./place.ts";
import { checkConditions } from "./preflight.ts";
import { requireYoung } from "./prune.ts";
import { completeUpload } from "./upload.ts";

/** Writes one page file. Pieces come in any order; all but the last have one size. */
export interface PageFileWriter {
  write(bytes: Uint8Array, offset: number, number: number): Promise<void>;
  /** Completes the file. */
  finish(): Promise<void>;
  /** Removes the written part. */
  abort(): Promise<void>;
}

export interface CopyTarget {
  /** The present checkpoint; null: none. */
  readonly checkpointId: bigint | null;
  /** Its page files. */
  readonly pageFileIds: ReadonlySet<bigint>;
  create(pageFile: PageFile, pieces: number): Promise<PageFileWriter>;
  /** Makes the source's checkpoint the place's. Precondition: all its page files are complete. */
  commit(source: CopySource): Promise<void>;
  close(): Promise<void>;
}

/** @throws {CheckpointBusyError} {SyscallError} {UnsupportedError} {RemoteError} */
export async function openCopyTarget(where: string, options: PlaceOptions): Promise<CopyTarget> {
  return isRemote(where)
    ? await S3Target.open(where, options)
    : new DirectoryTarget(resolve(where));
}

const LEFTOVER = /^(pages-[0-9a-f]{16}|meta\.[0-9a-f]{16}\.tmp)$/;

export class DirectoryTarget implements CopyTarget {
  readonly checkpointId: bigint | null;
  readonly pageFileIds: ReadonlySet<bigint>;
  private readonly directory: StagingDirectory;
  private readonly created: string[] = [];
  private isCommitted = false;

  constructor(path: string) {
    this.directory = new StagingDirectory(path);
    try {
      const found = contentsOf(path);
      this.checkpointId = found?.id ?? null;
      this.pageFileIds = found?.pageFileIds ?? new Set();
    } catch (error) {
      this.directory.close();
      throw error;
    }
  }

  async create({ id }: PageFile): Promise<PageFileWriter> {
    const { directory } = this;
    const name = pageFileName(id);
    // A leftover of a copy that died: no manifest names it.
    directory.removeIfExists(name);
    const fd = directory.create(name);
    this.created.push(name);
    return {
      write: async (bytes, offset) => writeBytes(fd, bytes, offset, directory.pathOf(name)),
      finish: async () => {
        try {
          await directory.syncFile(fd, name);
        } finally {
          closeFile(fd);
        }
      },
      abort: async () => closeFile(fd),
    };
  }

  async commit({ id, manifest, pageFiles }: CopySource): Promise<void> {
    const { directory } = this;
    const temporary = `${META}.${hex(id)}.tmp`;
    directory.removeIfExists(temporary);
    this.created.push(temporary);
    await directory.write(temporary, [manifest]);
    endCache(directory);
    await directory.sync();
    directory.rename(temporary, META);
    this.isCommitted = true;
    await directory.sync();
    const named = new Set(pageFiles.map((pageFile) => pageFileName(pageFile.id)));
    for (const name of directory.list())
      if (LEFTOVER.test(name) && !named.has(name)) await directory.remove(name);
  }

  async close(): Promise<void> {
    const { directory, created, isCommitted } = this;
    try {
      if (!isCommitted) for (const name of created) directory.removeIfExists(name);
    } finally {
      directory.close();
    }
  }
}

/**
 * Undefined if there is no checkpoint. A damaged one is replaced. @throws {NotCheckpointError}
 */
function contentsOf(path: string): { id: bigint; pageFileIds: Set<bigint> } | undefined {
  try {
    const { manifest, contents } = openCheckpoint(path);
    closeContents(contents);
    return { id: manifest.id, pageFileIds: new Set(manifest.pageFiles.map(({ id }) => id)) };
  } catch (error) {
    if (error instanceof NoCheckpointError) return undefined;
    if (!(error instanceof CorruptCheckpointError)) throw error;
    refuseForeign(`${path}/${META}`);
    return undefined;
  }
}

class S3Target implements CopyTarget {
  readonly checkpointId: bigint | null;
  readonly pageFileIds: ReadonlySet<bigint>;
  private readonly remote: RemotePlace;
  private readonly bucket: Bucket;
  private readonly sequence: number;
  private readonly beganMs = performance.now();

  private constructor(
    remote: RemotePlace,
    bucket: Bucket,
    found: { readonly sequence: number; readonly id: bigint | null; readonly ids: Set<bigint> },
  ) {
    this.remote = remote;
    this.bucket = bucket;
    this.sequence = found.sequence + 1;
    this.checkpointId = found.id;
    this.pageFileIds = found.ids;
  }

  static async open(url: string, options: PlaceOptions): Promise<S3Target> {
    const remote = await openPlace(url, options);
    try {
      const { bucket } = remote;
      if (bucket === null)
        throw new UnsupportedError(`Cannot copy to ${remote.url}: over HTTP, places are read-only`);
      await checkConditions(bucket);
      const newest = await newestPublished(bucket);
      if (newest === undefined)
        return new S3Target(remote, bucket, { sequence: 0, id: null, ids: new Set() });
      const { manifest } = await readManifest(bucket.client, bucket.url(newest.key));
      const ids = new Set(manifest.pageFiles.map(({ id }) => id));
      return new S3Target(remote, bucket, { sequence: newest.sequence, id: manifest.id, ids });
    } catch (error) {
      remote.close();
      throw error;
    }
  }

  /** Existing page files are written again, too, because prune may be about to remove them. */
  async create({ id }: PageFile, pieces: number): Promise<PageFileWriter> {
    const { bucket } = this;
    const key = pagesKey(bucket.place, id);
    if (pieces === 1) {
      const nothing = async () => undefined;
      return { write: (bytes) => bucket.put(key, bytes), finish: nothing, abort: nothing };
    }
    const upload = { key, uploadId: await bucket.createUpload(key) };
    const parts: UploadedPart[] = [];
    let lengthBytes = 0;
    return {
      write: async (bytes, _, number) => {
        await this.remote.ready();
        parts[number] = await bucket.uploadPart(upload, number + 1, bytes);
        lengthBytes += bytes.byteLength;
      },
      finish: () => completeUpload(bucket, upload, parts, lengthBytes),
      abort: () => bucket.abortUpload(key, upload.uploadId),
    };
  }

  async commit({ id, manifest }: CopySource): Promise<void> {
    await this.remote.ready();
    requireYoung(this.bucket.place.url, this.beganMs);
    await publish(this.bucket, { sequence: this.sequence, id, manifest });
  }

  async close(): Promise<void> {
    this.remote.close();
  }
}
