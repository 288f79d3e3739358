/**
 * Prune: removes old checkpoints of a place, and the remains of writers that died.
 *
 * It never removes an object that a checkpoint needs: a writer publishes the sequence after that of
 * the newest manifest that it saw, names only page files of that manifest and its own, and
 * publishes no upload older than UPLOAD_MS_MAX. A manifest younger than AGE_MS_MIN is kept. So a
 * page file that no manifest names, and that is older than AGE_MS_MIN, belongs to a writer that can
 * no longer publish. Page files are listed before the remaining manifests are read again.
 */
import { CheckpointConflictError } from "../errors/remote-errors.ts";
import type { Bucket } from "../http/bucket.ts";
import { manifestPageFiles } from "./manifest-page-files.ts";
import { listPublished, type Published } from "./manifests.ts";
import { pagesIdOf, preflightPrefix } from "./keys.ts";

const HOUR_MS = 3_600_000;
/** Younger objects are not removed. */
export const AGE_MS_MIN = 24 * HOUR_MS;
/** A writer refuses to publish an upload that it began longer ago. */
const UPLOAD_MS_MAX = 12 * HOUR_MS;

/**
 * Called by a writer before it publishes an upload that it began at `beganMs`, by the clock of
 * `performance`. @throws {CheckpointConflictError} if that is too long ago
 */
export function requireYoung(url: string, beganMs: number, nowMs = performance.now()): void {
  if (nowMs - beganMs > UPLOAD_MS_MAX)
    throw new CheckpointConflictError(url, "The upload took longer than twelve hours");
}
const DELETES_AT_ONCE = 16;

export interface PruneOptions {
  /** How many of the newest checkpoints to keep; at least 1. */
  readonly keep: number;
  /** Younger checkpoints are kept, too. At least a day, which is the default. */
  readonly minAgeMs?: number;
  /** Report what would be removed, and remove nothing. */
  readonly dryRun?: boolean;
  readonly onProgress?: (removed: string) => void;
}

export interface PruneReport {
  /** Sequences. */
  readonly kept: readonly number[];
  readonly removedCheckpoints: readonly number[];
  readonly removedPageFiles: number;
  readonly removedBytes: number;
  /** Uploads of writers that died. */
  readonly abortedUploads: number;
}

/** @throws {RangeError} {TypeError} @throws {RemoteError} */
export async function prune(
  bucket: Bucket,
  options: PruneOptions,
  nowMs = Date.now(),
): Promise<PruneReport> {
  const { keep, minAgeMs = AGE_MS_MIN } = options;
  if (!Number.isSafeInteger(keep) || keep < 1)
    throw new RangeError(`Expected keep to be an integer of 1 or more, got ${keep}`);
  if (!(minAgeMs >= AGE_MS_MIN))
    throw new RangeError(`Expected minAgeMs to be at least a day, got ${minAgeMs}`);
  return new Pruning(bucket, options, nowMs - minAgeMs).run();
}

class Pruning {
  private readonly bucket: Bucket;
  private readonly options: PruneOptions;
  /** Objects written before this may be removed. */
  private readonly beforeMs: number;
  private removedBytes = 0;

  constructor(bucket: Bucket, options: PruneOptions, beforeMs: number) {
    this.bucket = bucket;
    this.options = options;
    this.beforeMs = beforeMs;
  }

  async run(): Promise<PruneReport> {
    const { bucket, options, beforeMs } = this;
    const published = await all(listPublished(bucket));
    const old = published.slice(options.keep).filter(({ modifiedMs }) => modifiedMs < beforeMs);
    // Oldest first, so that no gap is left if it stops in the middle.
    await this.remove(old.toReversed());
    const left = published.filter((one) => !old.includes(one));
    const pageFiles = await this.removePageFiles(old);
    await this.removePreflights();
    return {
      kept: left.map(({ sequence }) => sequence),
      removedCheckpoints: old.map(({ sequence }) => sequence),
      removedPageFiles: pageFiles,
      removedBytes: this.removedBytes,
      abortedUploads: await this.abortUploads(),
    };
  }

  private async remove(objects: readonly { key: string; sizeBytes: number }[]): Promise<void> {
    for (let at = 0; at < objects.length; at += DELETES_AT_ONCE) {
      const some = objects.slice(at, at + DELETES_AT_ONCE);
      await Promise.all(some.map((object) => this.removeOne(object)));
    }
  }

  private async removeOne({ key, sizeBytes }: { key: string; sizeBytes: number }): Promise<void> {
    if (this.options.dryRun !== true) await this.bucket.delete(key);
    this.removedBytes += sizeBytes;
    this.options.onProgress?.(key);
  }

  private async removePageFiles(removed: readonly Published[]): Promise<number> {
    const { bucket, beforeMs } = this;
    const { place } = bucket;
    const found = await all(bucket.list(`${place.prefix}pages-`));
    const old = found.filter(
      ({ key, modifiedMs }) => modifiedMs < beforeMs && pagesIdOf(place, key) !== undefined,
    );
    if (old.length === 0) return 0;
    // Listed again, because others may have been published since this began.
    const gone = new Set(removed.map(({ key }) => key));
    const needed = new Set<bigint>();
    for await (const { key } of listPublished(bucket)) {
      if (gone.has(key)) continue;
      for (const { id } of await manifestPageFiles(bucket, key)) needed.add(id);
    }
    const orphans = old.filter(({ key }) => !needed.has(pagesIdOf(place, key)!));
    await this.remove(orphans);
    return orphans.length;
  }

  private async removePreflights(): Promise<void> {
    const { bucket, beforeMs } = this;
    const found = await all(bucket.list(preflightPrefix(bucket.place)));
    await this.remove(found.filter(({ modifiedMs }) => modifiedMs < beforeMs));
  }

  private async abortUploads(): Promise<number> {
    const { bucket, beforeMs, options } = this;
    const found = await all(bucket.listUploads(bucket.place.prefix));
    const old = found.filter(({ initiatedMs }) => initiatedMs < beforeMs);
    for (const { key, uploadId } of old) {
      if (pagesIdOf(bucket.place, key) === undefined) continue;
      if (options.dryRun !== true) await bucket.abortUpload(key, uploadId);
      options.onProgress?.(key);
    }
    return old.length;
  }
}

async function all<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const list: Item[] = [];
  for await (const item of items) list.push(item);
  return list;
}
