/**
 * The name of a file's base, the checkpoint that an incremental save builds on, as two words for
 * shared memory: a hash.
 */
export type BaseName = readonly [low: number, high: number];

/** `fileName`: of the file in the checkpoint. */
export function baseName(checkpointId: string, fileName: string): BaseName {
  const hash = Bun.hash.xxHash3(`${checkpointId}/${fileName}`);
  return [Number(hash & 0xffff_ffffn) | 0, Number(hash >> 32n) | 0];
}
