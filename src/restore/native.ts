/** Restores the files of an opened native checkpoint. */
import type { MemoryFileOptions } from "../core/options.ts";
import { closeOpened, type OpenedCheckpoint } from "./open-place.ts";
import { type Restored, type RestoreFile, restoreFiles, type RestoreOptions } from "./restore.ts";

/**
 * Takes over the opened checkpoint. `optionsOf` is the program's own code.
 *
 * @throws as `restoreFiles`, with no file left
 */
export function restoreCheckpoint(
  opened: OpenedCheckpoint,
  optionsOf: (name: string) => MemoryFileOptions,
  options: RestoreOptions,
): Restored {
  let files: RestoreFile[];
  try {
    files = opened.manifest.files.map((file) => ({
      image: file,
      map: file.pageMap,
      checksums: file.crcs,
      options: optionsOf(file.name),
    }));
  } catch (error) {
    closeOpened(opened);
    throw error;
  }
  return restoreFiles(opened.source, files, { ...options, onLoaded: () => opened.close() });
}
