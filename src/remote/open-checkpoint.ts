/**
 * Opens the checkpoint of a remote place: the manifest first, then the last page of each page file.
 * That page proves that the file is complete and belongs to the manifest, and its answer identifies
 * the object: all later reads name that identity, so they see the same bytes or fail.
 *
 * A writer, or prune, may replace the checkpoint meanwhile. So if something is missing or has
 * changed, and the place has another manifest by then, opening starts again.
 */
import { decodeManifest, type DecodedManifest } from "../checkpoint/decode.ts";
import { HEADER_BYTES, type PageFile } from "../checkpoint/format.ts";
import { decodeHeader } from "../checkpoint/header.ts";
import { checkTrailer, pageFileName, TRAILER_BYTES } from "../checkpoint/page-file.ts";
import { CorruptCheckpointError, NoCheckpointError } from "../errors/errors.ts";
import { RemoteError } from "../errors/remote-errors.ts";
import type { Client } from "../http/client.ts";
import { getRange, getStart } from "../http/range.ts";
import type { RemoteContent } from "../source/remote-source.ts";
import { fetchChecksums } from "./fetch-checksums.ts";
import { pagesKey } from "./keys.ts";
import { newestPublished, type Published } from "./manifests.ts";
import type { RemotePlace } from "./place.ts";

/** One round trip fetches the eager part of most manifests. */
const FIRST_BYTES = 2 ** 19;
const TRAILERS_AT_ONCE = 16;
const OPEN_ATTEMPTS = 8;
/** A manifest that must be fetched completely is fetched in pieces of this size. */
const PIECE_BYTES = 2 ** 23;

export interface RemoteCheckpoint {
  readonly manifest: DecodedManifest;
  /** 0: the manifest; 1 and up: its page files. */
  readonly contents: readonly RemoteContent[];
  /** Null over HTTP. */
  readonly published: Published | null;
  /** Indexed by file: the checksums of its pages, if they were fetched. */
  readonly checksums: readonly (Uint32Array | null)[];
}

/** Opens only the manifest. */
export type RemoteManifest = Omit<RemoteCheckpoint, "contents" | "checksums"> & {
  readonly content: RemoteContent;
};

/**
 * `toLoad`: also fetches the first things that a load needs.
 *
 * @throws {NoCheckpointError} if there is none
 * @throws {CorruptCheckpointError} {RemoteError}
 */
export async function openRemoteCheckpoint(
  place: RemotePlace,
  { toLoad = false }: { readonly toLoad?: boolean } = {},
): Promise<RemoteCheckpoint> {
  await place.ready();
  for (let attempt = 1, before: string | undefined; ; attempt++) {
    const opened = await openManifest(place);
    const { etag } = opened.content.identity;
    try {
      const { content, manifest } = opened;
      const columns = toLoad ? manifest.files.map(({ crcs }) => crcs) : [];
      const [pages, checksums] = await Promise.all([
        openPageFiles(place, manifest.pageFiles),
        fetchChecksums(place.client, content, columns),
      ]);
      return { ...opened, contents: [content, ...pages], checksums };
    } catch (error) {
      const isReplaced =
        error instanceof CorruptCheckpointError ||
        (error instanceof RemoteError && ["missing", "changed"].includes(error.failure));
      const isSame = attempt > 1 && before === `${opened.content.url} ${etag}`;
      if (!isReplaced || isSame || attempt === OPEN_ATTEMPTS) throw asCorrupt(error, place);
      before = `${opened.content.url} ${etag}`;
    }
  }
}

/** A page file that is missing is damage, not a failure of the network. */
function asCorrupt(error: unknown, { url }: RemotePlace): unknown {
  if (!(error instanceof RemoteError && error.failure === "missing")) return error;
  return new CorruptCheckpointError("A page file is missing", { path: url, cause: error });
}

/** Reads the part of a manifest that opening needs. @throws as `openRemoteCheckpoint` */
export async function openManifest(place: RemotePlace): Promise<RemoteManifest> {
  const published = place.bucket === null ? null : await newestPublished(place.bucket);
  if (published === undefined)
    throw new NoCheckpointError(place.url, undefined, { why: "no save has published one" });
  const url = published === null ? place.fileUrl("meta") : place.bucket!.url(published.key);
  try {
    return { published, ...(await readManifest(place.client, url)) };
  } catch (error) {
    const isMissing = error instanceof RemoteError && error.failure === "missing";
    throw isMissing && published === null
      ? new NoCheckpointError(place.url, error, { why: "the server has no file meta there" })
      : error;
  }
}

/** @throws {CorruptCheckpointError} {RemoteError} */
export async function readManifest(
  client: Client,
  url: string,
): Promise<Pick<RemoteManifest, "manifest" | "content">> {
  const { bytes, identity } = await getStart(client, url, FIRST_BYTES);
  const { sizeBytes } = identity;
  const path = shownPath(url);
  const { eagerBytes } = decodeHeader(
    bytes.subarray(0, HEADER_BYTES),
    sizeBytes,
    path,
    (problem) => {
      throw problem;
    },
  );
  // Shared, so that loading threads use its columns in place.
  const eager = new Uint8Array(new SharedArrayBuffer(eagerBytes));
  eager.set(bytes.subarray(0, eagerBytes));
  await fill(client, { url, identity }, eager, Math.min(bytes.byteLength, eagerBytes));
  return { manifest: decodeManifest(eager, sizeBytes, path), content: { url, identity } };
}

/** Reads the rest of a content's first bytes, from `start` on. */
async function fill(
  client: Client,
  { url, identity }: RemoteContent,
  bytes: Uint8Array,
  start: number,
): Promise<void> {
  const pieces: Promise<unknown>[] = [];
  for (let at = start; at < bytes.byteLength; at += PIECE_BYTES) {
    const end = Math.min(bytes.byteLength, at + PIECE_BYTES);
    const take = (piece: Uint8Array, offset: number): void => bytes.set(piece, at + offset);
    pieces.push(getRange(client, { url, start: at, end, identity }, take));
  }
  await Promise.all(pieces);
}

/** All bytes of a content, such as a manifest with its columns. */
export async function readWhole(client: Client, content: RemoteContent): Promise<Uint8Array> {
  const bytes = new Uint8Array(content.identity.sizeBytes);
  await fill(client, content, bytes, 0);
  return bytes;
}

async function openPageFiles(
  place: RemotePlace,
  pageFiles: readonly PageFile[],
): Promise<RemoteContent[]> {
  const contents: RemoteContent[] = [];
  for (let at = 0; at < pageFiles.length; at += TRAILERS_AT_ONCE) {
    const some = pageFiles.slice(at, at + TRAILERS_AT_ONCE);
    contents.push(...(await Promise.all(some.map((pageFile) => openPageFile(place, pageFile)))));
  }
  return contents;
}

async function openPageFile(place: RemotePlace, pageFile: PageFile): Promise<RemoteContent> {
  const url = pageFileUrl(place, pageFile.id);
  const path = shownPath(url);
  const { sizeBytes } = pageFile;
  const trailer = new Uint8Array(TRAILER_BYTES);
  const range = { url, start: sizeBytes, end: sizeBytes + TRAILER_BYTES };
  const identity = await getRange(place.client, range, (piece, at) => trailer.set(piece, at));
  if (identity.sizeBytes !== range.end)
    throw new CorruptCheckpointError(`Expected ${range.end} bytes, got ${identity.sizeBytes}`, {
      path,
    });
  checkTrailer(trailer, pageFile, path);
  return { url, identity };
}

export function pageFileUrl({ bucket, fileUrl }: RemotePlace, id: bigint): string {
  return bucket === null ? fileUrl(pageFileName(id)) : bucket.url(pagesKey(bucket.place, id));
}

/** An address as errors show it: without its query. */
function shownPath(url: string): string {
  return url.replace(/\?.*$/, "");
}
