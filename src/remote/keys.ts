/**
 * Keys of a checkpoint in a bucket, below the place's prefix:
 *
 *   pages-<id>            a page file, as in a directory
 *   manifest/<number>     a manifest. The number is MAX - sequence in 15 digits, so that a listing
 *                         has the newest first. Sequences begin at 1 and are never used again.
 *   preflight-<id>        an object that a save writes and deletes (preflight.ts)
 */
import type { S3Place } from "../http/s3-options.ts";

const SEQUENCE_MAX = 10 ** 15 - 1;

export function manifestPrefix({ prefix }: S3Place): string {
  return `${prefix}manifest/`;
}

export function manifestKey(place: S3Place, sequence: number): string {
  if (!Number.isSafeInteger(sequence) || sequence < 1 || sequence > SEQUENCE_MAX)
    throw new RangeError(`Expected sequence to be in [1, ${SEQUENCE_MAX}], got ${sequence}`);
  return manifestPrefix(place) + String(SEQUENCE_MAX - sequence).padStart(15, "0");
}

/** The sequence of a manifest's key; undefined for other keys. */
export function sequenceOf(place: S3Place, key: string): number | undefined {
  const prefix = manifestPrefix(place);
  const name = key.startsWith(prefix) ? key.slice(prefix.length) : "";
  return /^\d{15}$/.test(name) ? SEQUENCE_MAX - Number(name) : undefined;
}

export function pagesKey({ prefix }: S3Place, id: bigint): string {
  return `${prefix}pages-${hexOf(id)}`;
}

/** The id of a page file's key; undefined for other keys. */
export function pagesIdOf({ prefix }: S3Place, key: string): bigint | undefined {
  const name = key.startsWith(prefix) ? key.slice(prefix.length) : "";
  return /^pages-[0-9a-f]{16}$/.test(name) ? BigInt(`0x${name.slice(6)}`) : undefined;
}

export function preflightPrefix({ prefix }: S3Place): string {
  return `${prefix}preflight-`;
}

function hexOf(id: bigint): string {
  return id.toString(16).padStart(16, "0");
}
