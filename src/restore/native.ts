/** Restores the files of an opened native checkpoint. */
import { baseName } from "../control/base-name.ts";
import { noteCheckpoint } from "../core/known-checkpoints.ts";
import type { LoadOptions, MemoryFileOptions } from "../core/options.ts";
import { closeOpened, type OpenedCheckpoint } from "./open-place.ts";
import { type Restored, type RestoreFile, restoreFiles, type RestoreOptions } from "./restore.ts";
import { blockPagesFor, WorkingSet } from "./working-set.ts";

/**
 * Restores the files, and owns the opened checkpoint. `optionsOf` is the program's own code.
 *
 * @throws as `restoreFiles`, with no file left
 */
export function restoreCheckpoint(
  opened: OpenedCheckpoint,
  optionsOf: (name: string) => MemoryFileOptions,
  options: RestoreOptions & Pick<LoadOptions, "workingSet">,
): Restored {
  const { files: described, id } = opened.manifest;
  const { workingSet: path = false } = options;
  const idText = id.toString(16).padStart(16, "0");
  const blockPages = blockPagesFor(opened.source);
  const workingSet =
    path === false || options.background !== true
      ? undefined
      : new WorkingSet(path, idText, blockPages);
  let files: RestoreFile[];
  try {
    files = described.map((file, index) => ({
      image: file,
      map: file.pageMap,
      checksums: opened.checksums?.[index] ?? file.crcs,
      options: optionsOf(file.name),
      recording: workingSet && {
        blockPages,
        known: [...workingSet.blocksOf(file.name).keys()],
      },
    }));
  } catch (error) {
    closeOpened(opened);
    throw error;
  }
  const onEnd = (isLoaded: boolean) => opened.close(isLoaded);
  let restored: Restored;
  try {
    const ending = { onEnd, awaitsEnd: opened.isCaching };
    restored = restoreFiles(opened.source, files, { ...options, ...ending });
  } catch (error) {
    void onEnd(false);
    throw error;
  }
  restored.cores.forEach((core, index) => {
    core.mapping.overlay?.setBase(baseName(idText, described[index]!.name));
    if (opened.s3Place !== null) noteCheckpoint(core, opened.s3Place, id);
  });
  const named = restored.cores.map((core, index) => [described[index]!.name, core] as const);
  workingSet?.record(new Map(named));
  return restored;
}
