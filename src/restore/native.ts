/** Restores the files of an opened native checkpoint. */
import { closeContents, type OpenCheckpoint } from "../checkpoint/directory.ts";
import type { MemoryFileOptions } from "../core/options.ts";
import { fileSource } from "../source/file-source.ts";
import { type Restored, type RestoreFile, restoreFiles, type RestoreOptions } from "./restore.ts";

/**
 * Takes over the checkpoint's descriptors. `optionsOf` is the program's own code.
 *
 * @throws as `restoreFiles`, with no file left
 */
export function restoreCheckpoint(
  { manifest, contents }: OpenCheckpoint,
  optionsOf: (name: string) => MemoryFileOptions,
  options: RestoreOptions,
): Restored {
  let files: RestoreFile[];
  try {
    files = manifest.files.map((file) => ({
      image: file,
      map: file.pageMap,
      checksums: file.crcs,
      options: optionsOf(file.name),
    }));
  } catch (error) {
    closeContents(contents);
    throw error;
  }
  return restoreFiles(fileSource(contents), files, options);
}
