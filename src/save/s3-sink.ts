/**
 * A checkpoint in S3:
 *
 *   1. send pages-<id> in parts; the object appears when all parts are there
 *   2. write manifest/<next sequence> unless there is one              <- commit
 *
 * A writer that dies leaves parts or a page file that no manifest names. `pgalloc prune` removes
 * them. Of two writers one succeeds, and the other gets a CheckpointConflictError: the one that
 * publishes second, and the one whose files do not know the newest checkpoint (expectation.ts).
 */
import { closeFile, createMemoryFd } from "../../ffi/index.ts";
import { closeContents, type OpenCheckpoint } from "../checkpoint/directory.ts";
import type { EncodedManifest } from "../checkpoint/encode.ts";
import { encodeTrailer } from "../checkpoint/page-file.ts";
import { writeBytes } from "../checkpoint/staging.ts";
import { CorruptCheckpointError, UnsupportedError } from "../errors/errors.ts";
import { CheckpointConflictError, RemoteError } from "../errors/remote-errors.ts";
import type { Bucket } from "../http/bucket.ts";
import { pagesKey } from "../remote/keys.ts";
import { idAt, newestPublished, publish, type Published } from "../remote/manifests.ts";
import { readManifest, readWhole } from "../remote/open-checkpoint.ts";
import { openPlace, openUnlessAborted, type RemotePlace } from "../remote/place.ts";
import { checkConditions } from "../remote/preflight.ts";
import { requireYoung } from "../remote/prune.ts";
import { PageUpload, type UploadDescription } from "../remote/upload.ts";
import { Expectation } from "./expectation.ts";
import { noteManifest, recentManifest } from "./recent-manifests.ts";
import type { Commit, Sink, SinkOptions } from "./sink.ts";

export class S3Sink implements Sink {
  readonly place: string;
  readonly base: OpenCheckpoint | null;
  private readonly remote: RemotePlace;
  private readonly bucket: Bucket;
  /** The sequence number of the present checkpoint; 0: none. */
  private readonly baseSequence: number;
  private readonly expectation: Expectation;
  private readonly signal: AbortSignal | undefined;
  private readonly onAbort = (): void => this.upload?.stop();
  private upload: PageUpload | undefined;
  private readonly beganMs = performance.now();
  private isCommitted = false;
  /** True while it is unknown whether the manifest was written. */
  private isUnclear = false;

  private constructor(
    remote: RemotePlace,
    bucket: Bucket,
    more: {
      readonly sequence: number;
      readonly base: OpenCheckpoint | null;
      readonly expectation: Expectation;
      readonly signal: AbortSignal | undefined;
    },
  ) {
    this.place = remote.url;
    this.remote = remote;
    this.bucket = bucket;
    this.base = more.base;
    this.baseSequence = more.sequence;
    this.expectation = more.expectation;
    this.signal = more.signal;
    this.signal?.addEventListener("abort", this.onAbort);
  }

  /**
   * @throws {UnsupportedError} if the store ignores conditions, and for HTTP
   * @throws {CheckpointConflictError} if another writer has published
   * @throws {RemoteError}
   */
  static async open(url: string, options: SinkOptions): Promise<S3Sink> {
    const open = (opening: AbortSignal | undefined) => S3Sink.openNow(url, options, opening);
    return await openUnlessAborted(options.signal, open, (sink) => void sink.close());
  }

  private static async openNow(
    url: string,
    options: SinkOptions,
    opening: AbortSignal | undefined,
  ): Promise<S3Sink> {
    const { wantsBase, signal, cores = [], ...placeOptions } = options;
    // Its later requests do not end with the save's signal: they remove what was sent.
    const remote = await openPlace(url, { ...placeOptions, signal: opening });
    let base: OpenCheckpoint | null = null;
    try {
      const { bucket } = remote;
      if (bucket === null)
        throw new UnsupportedError(`Cannot save to ${remote.url}: over HTTP, places are read-only`);
      await checkConditions(bucket);
      const newest = await newestPublished(bucket);
      if (wantsBase && newest !== undefined) base = await openBase(bucket, newest);
      // Read after the listing: a save of the same files may have ended just before it.
      const expectation = new Expectation(bucket.place, cores);
      if (newest !== undefined && expectation.isGiven) {
        const id = base?.manifest.id ?? (await idAt(bucket, newest.key));
        if (id === undefined || !expectation.allows(id)) throw lostBase(remote.url);
      }
      const sequence = newest?.sequence ?? 0;
      return new S3Sink(remote, bucket, { sequence, base, expectation, signal });
    } catch (error) {
      closeContents(base?.contents ?? []);
      remote.close();
      throw error;
    }
  }

  async beginPages(id: bigint, mostBytes: number): Promise<UploadDescription> {
    const { signing, counters } = this.remote;
    await this.remote.ready();
    this.upload = PageUpload.begin(this.bucket, pagesKey(this.bucket.place, id), mostBytes, {
      signing: signing!,
      counters,
    });
    return this.upload.description;
  }

  async commit({ id, written, makeManifest }: Commit): Promise<void> {
    const { manifest, pageFiles } = await makeManifest();
    await this.remote.ready();
    this.signal?.throwIfAborted();
    const isNamed = pageFiles.some(({ id: named }) => named === written?.id);
    if (written === null || !isNamed) await this.upload?.abort();
    else await this.upload!.complete(written.sizeBytes, encodeTrailer(written));
    requireYoung(this.place, this.beganMs);
    this.signal?.throwIfAborted();
    this.isUnclear = true;
    try {
      const sequence = this.baseSequence + 1;
      const bytes = joinParts(manifest);
      await publish(this.bucket, { sequence, id, manifest: bytes });
      this.isCommitted = true;
      noteManifest(id, bytes, this.base?.manifest.id);
    } catch (error) {
      if (!(error instanceof CheckpointConflictError)) {
        this.expectation.noteUnclear(id);
        throw error;
      }
      this.isUnclear = false;
      throw this.expectation.isGiven ? lostBase(this.place, error) : error;
    }
    this.expectation.notePublished(id);
  }

  async keepBase(): Promise<void> {
    this.expectation.notePublished(this.base!.manifest.id);
  }

  async close(): Promise<void> {
    const { upload, base, remote } = this;
    this.signal?.removeEventListener("abort", this.onAbort);
    closeContents(base?.contents ?? []);
    try {
      if (upload === undefined || this.isCommitted) return;
      // If the manifest may exist, its page file must stay. Prune checks it later.
      if (!this.isUnclear) await upload.remove();
    } catch (error) {
      // The save has already failed, and reports that error. Prune removes the remains.
      if (!(error instanceof RemoteError)) throw error;
    } finally {
      remote.close();
    }
  }
}

/** A save on top of the other writer's checkpoint would undo that writer's changes. */
function lostBase(url: string, cause?: unknown): CheckpointConflictError {
  return new CheckpointConflictError(
    url,
    "Another writer has published a checkpoint that this file was not made from",
    { advice: "load it and repeat the changes, or save to another place", cause },
  );
}

function joinParts({ parts, lengthBytes }: EncodedManifest): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.byteLength;
  }
  return bytes;
}

/** The present checkpoint, with its manifest in a memory file; null if it is damaged. */
async function openBase(bucket: Bucket, { key }: Published): Promise<OpenCheckpoint | null> {
  const url = bucket.url(key);
  try {
    const { manifest, content } = await readManifest(bucket.client, url);
    const recent = recentManifest(manifest.id);
    const isWhole = recent?.byteLength === content.identity.sizeBytes;
    const bytes = isWhole ? recent : await readWhole(bucket.client, content);
    const fd = createMemoryFd("pgalloc-manifest");
    try {
      writeBytes(fd, bytes, 0, url);
    } catch (error) {
      closeFile(fd);
      throw error;
    }
    return { manifest, contents: [{ fd, path: url, sizeBytes: bytes.byteLength }] };
  } catch (error) {
    if (error instanceof CorruptCheckpointError) return null;
    throw error;
  }
}
