/** Restores one file from the checkpoint at a place, or makes one if there is none. */
import { resolve } from "node:path";
import { FileCore } from "../core/core.ts";
import { noteNoCheckpoint } from "../core/known-checkpoints.ts";
import type { LoadOptions } from "../core/options.ts";
import { createParts } from "../core/parts.ts";
import { SeveralFilesError } from "../errors/errors.ts";
import { shownPlace } from "../http/shown-url.ts";
import type { Loader } from "../load/loader.ts";
import { recordLoad } from "../metrics/record.ts";
import { restoreCheckpoint } from "../restore/native.ts";
import { checkCache } from "../restore/open-cached.ts";
import type { RestoreOrigin } from "../restore/refresh.ts";
import { closeOpened, openCheckpointAt } from "../restore/open-place.ts";
import { workingSetPath } from "../restore/working-set.ts";

export interface RestoredFile {
  readonly core: FileCore;
  readonly userData: Uint8Array | null;
  readonly origin: RestoreOrigin;
  /** Waits for the load, unless it runs in the background. */
  finish(): Promise<void>;
}

/**
 * Options of a load from `place`, with all their paths absolute, so that a later change of the
 * program's directory does not matter.
 *
 * @throws {TypeError} {RangeError} for a bad path, cache or working set
 */
export function resolveLoadOptions<T extends LoadOptions>(place: string, options: T): T {
  const { path } = options;
  return {
    ...options,
    ...(typeof path === "string" && path !== "" && { path: resolve(path) }),
    cache: checkCache(options.cache),
    workingSet: workingSetPath(place, options) ?? false,
  };
}

/** An empty file for a place without a checkpoint. Precondition: the arguments are checked. */
export function createFileFor(place: string, options: LoadOptions): FileCore {
  const core = new FileCore(createParts(options));
  noteNoCheckpoint(core, place, options.s3);
  return core;
}

/** As MemoryFile.loadFrom. Precondition: the arguments are checked. */
export async function restoreFile(directory: string, options: LoadOptions): Promise<RestoredFile> {
  const opening = openCheckpointAt(directory, options);
  const checkpoint = opening instanceof Promise ? await opening : opening;
  const { files } = checkpoint.manifest;
  const [only] = files;
  if (only === undefined || files.length > 1) {
    closeOpened(checkpoint);
    const names = files.map(({ name }) => name);
    throw new SeveralFilesError(shownPlace(directory), names);
  }
  const { onProgress } = options;
  const restoring = {
    ...options,
    report: onProgress && (([loader]: readonly Loader[]) => onProgress(loader!.stats())),
  };
  const restored = restoreCheckpoint(checkpoint, () => options, restoring);
  const [core] = restored.cores as [FileCore];
  void recordLoad(core);
  const { manifest, version } = checkpoint;
  const origin = { where: directory, options, manifest, version };
  return { core, userData: only.userData, origin, finish: () => restored.finish() };
}
