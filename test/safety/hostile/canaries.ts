/**
 * Memory around a program's MemoryFiles that must not change: other files' pages, and the
 * JavaScript heap's.
 */
import { type FileRange, MemoryFile } from "../../../src/index.ts";

const FILE_BYTES = 2 ** 20;

export class Canaries implements Disposable {
  private readonly files: { readonly file: MemoryFile; readonly range: FileRange }[] = [];
  private readonly heap = Array.from({ length: 16 }, (_, i) =>
    new Uint8Array(2 ** (8 + (i % 8))).fill(0xa0 + i),
  );

  /** Several files, so that some are mapped before and some behind those to come. */
  constructor() {
    for (let i = 0; i < 3; i++) {
      const file = MemoryFile.create({ name: `canary-${i}` });
      const range = file.allocate(FILE_BYTES);
      file.view(range).fill(0x50 + i);
      this.files.push({ file, range });
    }
  }

  /** Throws if a byte has changed. */
  check(): void {
    for (const [i, { file, range }] of this.files.entries()) {
      if (!file.view(range).every((byte) => byte === 0x50 + i))
        throw new Error(`Canary file ${i} was written to`);
      if (file.allocatedBytes !== FILE_BYTES)
        throw new Error(`Canary file ${i} has other pages than before`);
    }
    for (const [i, bytes] of this.heap.entries()) {
      if (!bytes.every((byte) => byte === 0xa0 + i))
        throw new Error(`Canary array ${i} was written to`);
    }
  }

  [Symbol.dispose](): void {
    for (const { file } of this.files) file.destroy();
  }
}
