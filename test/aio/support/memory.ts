/** Native memory and files for queue tests. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bufferAt, detach, mapAnonymous, unmap } from "../../../ffi/index.ts";

/** Memory that cannot move, with a view of it; unmapped at the end of the scope. */
export class NativeMemory implements Disposable {
  readonly address: number;
  readonly bytes: Uint8Array;
  private readonly buffer: ArrayBuffer;
  private readonly lengthBytes: number;

  constructor(lengthBytes: number) {
    this.lengthBytes = lengthBytes;
    this.address = mapAnonymous(lengthBytes);
    this.buffer = bufferAt(this.address, lengthBytes);
    this.bytes = new Uint8Array(this.buffer);
  }

  [Symbol.dispose](): void {
    detach(this.buffer);
    unmap(this.address, this.lengthBytes);
  }
}

/** A directory of its own, removed at the end of the scope. */
export class TemporaryDirectory implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "pgalloc-aio-"));

  file(name: string): string {
    return join(this.path, name);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true });
  }
}

/** Bytes that depend on their place. */
export function pattern(lengthBytes: number, seed = 1): Uint8Array {
  const words = new Uint32Array(Math.ceil(lengthBytes / 4));
  let x = seed * 0x9e3779b9;
  for (let i = 0; i < words.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[i] = x;
  }
  return new Uint8Array(words.buffer, 0, lengthBytes);
}
