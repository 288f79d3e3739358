/** Restoring one file from the checkpoint at a place: what MemoryFile.loadFrom does. */
import type { DecodedManifest } from "../checkpoint/decode.ts";
import { absolutePath } from "../checkpoint/staging.ts";
import type { FileCore } from "../core/core.ts";
import { checkMapped, type LoadOptions } from "../core/options.ts";
import { SeveralFilesError } from "../errors/errors.ts";
import type { Loader } from "../load/loader.ts";
import { recordLoad } from "../metrics/record.ts";
import { isRemote } from "../remote/place.ts";
import { restoreCheckpoint } from "../restore/native.ts";
import { closeOpened, openCheckpointAt } from "../restore/open-place.ts";
import { workingSetPath } from "../restore/working-set.ts";

/**
 * A directory as an absolute path, so that a later change of directory does not matter; or a URL.
 */
export function placeOf(directory: string): string {
  return isRemote(directory) ? directory : absolutePath(directory);
}

export interface RestoredFile {
  readonly core: FileCore;
  readonly userData: Uint8Array | null;
  readonly manifest: DecodedManifest;
  /** Waits for the load, unless it goes on in the background. */
  finish(): Promise<void>;
}

/** As MemoryFile.loadFrom. Precondition: the other arguments are checked. */
export async function restoreFile(directory: string, options: LoadOptions): Promise<RestoredFile> {
  checkMapped(options);
  const workingSet = workingSetPath(directory, options);
  const opening = openCheckpointAt(directory, options);
  const checkpoint = opening instanceof Promise ? await opening : opening;
  const { files } = checkpoint.manifest;
  const [only] = files;
  if (only === undefined || files.length > 1) {
    closeOpened(checkpoint);
    const names = files.map(({ name }) => name);
    throw new SeveralFilesError(directory, names);
  }
  const { onProgress } = options;
  const restoring = {
    ...options,
    report: onProgress && (([loader]: readonly Loader[]) => onProgress(loader!.stats())),
  };
  const restored = restoreCheckpoint(checkpoint, () => options, restoring, workingSet);
  const [core] = restored.cores as [FileCore];
  void recordLoad(core);
  const { manifest } = checkpoint;
  return { core, userData: only.userData, manifest, finish: () => restored.finish() };
}
