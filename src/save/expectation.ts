/**
 * What the files of a save expect at its destination in S3: the checkpoint that they were restored
 * from, or that they saved there last. If there is another one, the save would undo the work of
 * another writer. Files that do not know the place expect nothing.
 */
import type { FileCore } from "../core/core.ts";
import { knownIds, noteCheckpoint } from "../core/known-checkpoints.ts";
import type { S3Place } from "../http/s3-options.ts";

export class Expectation {
  private readonly place: S3Place;
  /** What each file knows when the save begins. */
  private readonly known: readonly { readonly core: FileCore; readonly ids: readonly bigint[] }[];

  constructor(place: S3Place, cores: readonly FileCore[]) {
    this.place = place;
    this.known = cores.map((core) => ({ core, ids: knownIds(core, place) }));
  }

  /** False if the save may replace any checkpoint. */
  get isGiven(): boolean {
    return this.known.some(({ ids }) => ids.length > 0);
  }

  allows(id: bigint): boolean {
    return this.known.every(({ ids }) => ids.length === 0 || ids.includes(id));
  }

  /** The save has published. */
  notePublished(id: bigint): void {
    for (const { core, ids } of this.known) noteCheckpoint(core, this.place, id, ids);
  }

  /** It is unknown whether the save has published. */
  noteUnclear(id: bigint): void {
    for (const { core, ids } of this.known)
      if (ids.length > 0) noteCheckpoint(core, this.place, id);
  }
}
