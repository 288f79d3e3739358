/**
 * Errors of a load in shared memory, so that every thread knows why a page failed. An error is
 * stored as text; equal errors share a record.
 *
 * A record's first word is its state: 0 free, -1 being written, else the length of its text. It
 * changes by compare-exchange from 0, and is stored after the text. Records are never freed. If all
 * are taken, further errors share the last one, which says so.
 */
import { SyscallError } from "../../ffi/index.ts";
import { rebuildError, tellError } from "../threads/errors.ts";

const RECORDS = 16;
const RECORD_BYTES = 512;
export const ERROR_TABLE_BYTES = RECORDS * RECORD_BYTES;
const RECORD_WORDS = RECORD_BYTES / 4;
const TEXT_BYTES_MAX = RECORD_BYTES - 4;
const BEING_WRITTEN = -1;

/** A read's failure without its place, which the page determines. */
export type StoredError =
  | { readonly kind: "syscall"; readonly syscall: string; readonly errno: number }
  | { readonly kind: "error"; readonly error: Error };

export class ErrorTable {
  private readonly words: Int32Array;

  constructor(words: Int32Array) {
    this.words = words;
  }

  /** The number of an error: 1 or more. */
  add(error: Error): number {
    const text = encode(error);
    for (let record = 0; record < RECORDS - 1; record++) {
      const at = record * RECORD_WORDS;
      if (Atomics.compareExchange(this.words, at, 0, BEING_WRITTEN) === 0) {
        this.bytesOf(record).set(text);
        Atomics.store(this.words, at, text.byteLength);
        return record + 1;
      }
      if (Buffer.compare(this.textOf(record), text) === 0) return record + 1;
    }
    return RECORDS;
  }

  /** The error of a number. */
  get(number: number): StoredError {
    const text = this.textOf(number - 1);
    if (text.byteLength === 0)
      return { kind: "error", error: new Error("The read failed; too many errors to keep each") };
    const stored = JSON.parse(Buffer.from(text).toString()) as Record<string, unknown>;
    if (typeof stored["errno"] === "number") {
      return { kind: "syscall", syscall: String(stored["syscall"]), errno: stored["errno"] };
    }
    return { kind: "error", error: rebuildError(stored["told"] as never) as Error };
  }

  /** Empty if the record has no text yet: another thread may be writing it. */
  private textOf(record: number): Uint8Array {
    const length = Atomics.load(this.words, record * RECORD_WORDS);
    return this.bytesOf(record).slice(0, Math.max(0, length));
  }

  private bytesOf(record: number): Uint8Array {
    const { buffer, byteOffset } = this.words;
    return new Uint8Array(buffer, byteOffset + record * RECORD_BYTES + 4, TEXT_BYTES_MAX);
  }
}

function encode(error: Error): Uint8Array {
  if (error instanceof SyscallError)
    return Buffer.from(JSON.stringify({ syscall: error.syscall, errno: -error.errno }));
  const told = tellError(error) as { name?: string; message?: string; fields?: object };
  const { name = "Error", message = "", fields = {} } = told;
  const code = (fields as { code?: unknown }).code;
  const short = { kind: "error", name, fields: code === undefined ? {} : { code: String(code) } };
  for (let length = message.length; ; length = Math.floor(length / 2)) {
    const text = Buffer.from(
      JSON.stringify({ told: { ...short, message: message.slice(0, length) } }),
    );
    if (text.byteLength <= TEXT_BYTES_MAX || length === 0) return text.subarray(0, TEXT_BYTES_MAX);
  }
}
