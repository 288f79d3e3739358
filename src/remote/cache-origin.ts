/** The file `origin` of a cache: the place and version of the checkpoint in its directory. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { META } from "../checkpoint/directory.ts";
import { hex } from "../checkpoint/page-file.ts";
import type { StagingDirectory } from "../checkpoint/staging.ts";
import { NotCheckpointError } from "../errors/errors.ts";

export const ORIGIN = "origin";
/** The next origin, before it is the directory's. */
export const NEXT_ORIGIN = "origin.tmp";

export interface Origin {
  /** The place's URL, without a query. */
  readonly url: string;
  /** Distinguishes the checkpoints of the place without reading them. */
  readonly version: string;
  readonly id: bigint;
}

export function encodeOrigin({ url, version, id }: Origin): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify({ url, version, id: hex(id) })}\n`);
}

/** Undefined if there is none, or it cannot be read. */
export function readOrigin(directory: string): Origin | undefined {
  let text: string;
  try {
    text = readFileSync(join(directory, ORIGIN), "utf8");
  } catch (error) {
    // A fill says what is wrong with a directory that is a file.
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw error;
  }
  return parseOrigin(text);
}

/**
 * A fill only replaces what a fill has made: a directory with a manifest and no origin is of
 * another use. Precondition: the directory is locked.
 *
 * @throws {NotCheckpointError}
 */
export function requireCache(directory: StagingDirectory): void {
  const names = directory.list();
  if (names.includes(ORIGIN)) return;
  // A fill ended between its two renames. Its origin has the id of the manifest it belongs to.
  if (names.includes(NEXT_ORIGIN)) directory.rename(NEXT_ORIGIN, ORIGIN);
  else if (names.includes(META))
    throw new NotCheckpointError(directory.pathOf(META), "no load made it as its cache");
}

/** A save replaces the checkpoint of a cache, so that no fill replaces the save's. */
export function endCache(directory: StagingDirectory): void {
  const names = directory.list();
  if (!names.includes(ORIGIN) || readOriginIfFile(directory.path) === undefined) return;
  directory.removeIfExists(NEXT_ORIGIN);
  directory.removeIfExists(ORIGIN);
}

/** A program may have a directory, or a file that cannot be read, of that name. */
function readOriginIfFile(directory: string): Origin | undefined {
  try {
    return readOrigin(directory);
  } catch {
    return undefined;
  }
}

function parseOrigin(text: string): Origin | undefined {
  let value: { url?: unknown; version?: unknown; id?: unknown } | null;
  try {
    value = JSON.parse(text) as typeof value;
  } catch {
    // Damaged: the cache is filled again.
    return undefined;
  }
  const { url, version, id } = value ?? {};
  const isOrigin = typeof url === "string" && typeof version === "string" && typeof id === "string";
  if (!isOrigin || !/^[0-9a-f]{16}$/.test(id)) return undefined;
  return { url, version, id: BigInt(`0x${id}`) };
}
