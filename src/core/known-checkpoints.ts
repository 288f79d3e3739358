/**
 * What a file knows of the checkpoints in S3, where nothing locks a place. For each place that it
 * was restored from or saved to: the ids that the newest checkpoint there may have if no other
 * writer has published. They are several while it is unknown whether a save has published.
 *
 * All threads of the file share one table in its control block: pairs of a place and an id, the
 * oldest first, then zeros. One call writes all of it with the lock held, so a thread that dies
 * leaves the table whole.
 */
import { KNOWN_CHECKPOINTS } from "../control/control.ts";
import { isS3Url, parseS3Place, type S3Options, type S3Place } from "../http/s3-options.ts";
import type { FileCore } from "./core.ts";

/** In place of an id: the place has no checkpoint. */
const NO_CHECKPOINT = 0n;

interface Pair {
  /** A hash of its address, never 0. */
  readonly place: bigint;
  readonly id: bigint;
}

/** Empty if the file was neither restored from the place nor saved to it. */
export function knownIds(core: FileCore, place: S3Place): bigint[] {
  const word = wordOf(place);
  const pairs = locked(core, () => readPairs(core));
  return pairs.filter((pair) => pair.place === word).map(({ id }) => id);
}

/** The place's checkpoint may be `id` now, and is none of `replaced` any more. */
export function noteCheckpoint(
  core: FileCore,
  place: S3Place,
  id: bigint,
  replaced: readonly bigint[] = [],
): void {
  const added = { place: wordOf(place), id };
  const isGone = (pair: Pair): boolean =>
    pair.place === added.place && (pair.id === id || replaced.includes(pair.id));
  locked(core, () => {
    const kept = readPairs(core).filter((pair) => !isGone(pair));
    writePairs(core, makeRoom([...kept, added]));
  });
}

/**
 * For a file that is made because `where` has no checkpoint. If that is in S3, the file replaces
 * none that another writer publishes there.
 */
export function noteNoCheckpoint(core: FileCore, where: string, options?: S3Options): void {
  if (isS3Url(where)) noteCheckpoint(core, parseS3Place(where, options), NO_CHECKPOINT);
}

/** For a file that takes the place of another one. */
export function inheritCheckpoints(from: FileCore, to: FileCore): void {
  const pairs = locked(from, () => readPairs(from));
  locked(to, () => writePairs(to, pairs));
}

/**
 * At most KNOWN_CHECKPOINTS of the pairs, with the last one. A place that is forgotten is as one
 * that the file never knew. The first pair of a place is the checkpoint before all unclear saves.
 */
function makeRoom(pairs: readonly Pair[]): readonly Pair[] {
  if (pairs.length <= KNOWN_CHECKPOINTS) return pairs;
  const { place } = pairs.at(-1)!;
  const own = pairs.filter((pair) => pair.place === place);
  if (own.length > 2) return pairs.filter((pair) => pair !== own[1]);
  const oldest = pairs.find((pair) => pair.place !== place)!.place;
  return pairs.filter((pair) => pair.place !== oldest);
}

function wordOf({ bucketUrl, prefix }: S3Place): bigint {
  return Bun.hash.xxHash3(bucketUrl + prefix) | 1n;
}

function readPairs({ control }: FileCore): Pair[] {
  const { checkpoints } = control;
  const pairs: Pair[] = [];
  for (let at = 0; at < checkpoints.length && checkpoints[at] !== 0n; at += 2)
    pairs.push({ place: checkpoints[at]!, id: checkpoints[at + 1]! });
  return pairs;
}

function writePairs({ control }: FileCore, pairs: readonly Pair[]): void {
  const next = new BigUint64Array(control.checkpoints.length);
  next.set(pairs.flatMap(({ place, id }) => [place, id]));
  control.checkpoints.set(next);
}

function locked<T>(core: FileCore, step: () => T): T {
  // The file has ended for this thread, with its tables. A save that began before may still run.
  if (core.isDetached) return step();
  core.allocator.lock();
  try {
    return step();
  } finally {
    core.allocator.unlock();
  }
}
