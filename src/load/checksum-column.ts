/**
 * CRC-32s of pages, by rank. The column stays in the manifest until it is needed. The thread that
 * needs a block reads it on first use. Two threads may read a block at once; both store the same
 * bytes. A block's word is set after its values.
 */
import { bufferAt, detach } from "../../ffi/index.ts";
import { BLOCK_PAGES } from "../checkpoint/page-map.ts";
import type { SharedChecksums } from "./load-tables.ts";

const READY = 1;
const VALUE_BYTES = 4;

export class ChecksumColumn {
  readonly values: Uint32Array;
  private readonly shared: SharedChecksums;

  constructor(shared: SharedChecksums) {
    this.shared = shared;
    this.values = shared.values;
  }

  isReady(block: number): boolean {
    return Atomics.load(this.shared.states, block) === READY;
  }

  /** The block of a rank. */
  blockOf(rank: number): number {
    return Math.floor(rank / BLOCK_PAGES);
  }

  /** The place of a block in content 0. */
  placeOf(block: number): { offset: number; lengthBytes: number } {
    const first = block * BLOCK_PAGES;
    const count = Math.min(BLOCK_PAGES, this.values.length - first);
    return {
      offset: this.shared.offset + first * VALUE_BYTES,
      lengthBytes: count * VALUE_BYTES,
    };
  }

  /** Copies a block's bytes from memory at `address`. False if they are damaged. */
  install(block: number, address: number): boolean {
    const { lengthBytes } = this.placeOf(block);
    const buffer = bufferAt(address, lengthBytes);
    try {
      if (Bun.hash.crc32(new Uint8Array(buffer)) !== this.shared.blockCrcs[block]) return false;
      this.values.set(new Uint32Array(buffer), block * BLOCK_PAGES);
    } finally {
      detach(buffer);
    }
    Atomics.store(this.shared.states, block, READY);
    return true;
  }
}
