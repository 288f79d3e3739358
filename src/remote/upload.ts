/**
 * PageUpload: sends one page file to a bucket while several threads write it.
 *
 * Contents are cut into parts of equal size. Threads copy their contents into buffers of shared
 * memory, one for each part; the thread that fills a part sends it. Part p uses buffer p modulo
 * BUFFERS, so a part waits until the part that used its buffer before has been sent. Contents are
 * written without gaps larger than the rest of a page, which stays zero.
 *
 * Shared words:
 *   Failed           whether a part could not be sent, or the save has ended: 0 no, 1 a thread is
 *                    storing the reason, 2 yes.
 *   Created          whether there is a multipart upload: 0 no, 1 a thread is creating it, 2 yes.
 *   owner[b]         the part that buffer b belongs to. Written by the thread that sent the part
 *                    before; waited for.
 *   filled[b]        bytes written to buffer b. Atomics.add by writing threads.
 * and records: the upload's id, its failure, then for each sent part its CRC-32 and its ETag,
 * written by the thread that sent it, and read when all writers are closed.
 *
 * The first full part creates the upload. A smaller page file is one write.
 */
import { addressOf, copyMemory } from "../../ffi/index.ts";
import { RemoteError, type RemoteErrorDetails } from "../errors/remote-errors.ts";
import { Bucket, type UploadedPart } from "../http/bucket.ts";
import { Client, type ClientOptions } from "../http/client.ts";
import type { CounterHandle } from "../http/counters.ts";
import type { S3Place } from "../http/s3-options.ts";
import { openSigner, type Signing } from "../http/sign.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../pages/units.ts";

const PART_BYTES_MIN = 4 * HUGE_PAGE_SIZE;
/** Limits of S3. */
const PARTS_MAX = 10_000;
/**
 * Room for this many times the contents: a save may write pages again that change while it runs.
 */
const PARTS_EXPECTED = 1_100;
const BUFFERS_BYTES = 64 * 2 ** 20;
const BUFFERS_MIN = 3;
const WAIT_MS = 100;

const FAILED = 0;
const CREATED = 1;
const OWNERS = 2;
const Creation = { None: 0, UnderWay: 1, Done: 2 } as const;
const RECORD_BYTES = 128;
const ETAG_BYTES_MAX = RECORD_BYTES - 4;
/** Upload ids have no stated limit; those of AWS have about 130 bytes. */
const UPLOAD_ID_BYTES = 2048;
const FAILURE_BYTES = 4096;
const RECORDS_AT = UPLOAD_ID_BYTES + FAILURE_BYTES;

/** Completes an upload of `contentBytes`, also if the answer to the first attempt is lost. */
export async function completeUpload(
  bucket: Bucket,
  upload: { readonly key: string; readonly uploadId: string },
  parts: readonly UploadedPart[],
  lengthBytes: number,
): Promise<void> {
  try {
    await bucket.completeUpload(upload, parts);
  } catch (error) {
    if (!(error instanceof RemoteError) || error.failure !== "missing") throw error;
    const found = await bucket.head(upload.key);
    if (found?.sizeBytes !== lengthBytes) throw error;
  }
}

/** The description that threads write by. postMessage can copy it. */
export interface UploadDescription {
  readonly kind: "s3";
  readonly place: S3Place;
  readonly key: string;
  readonly signing: Signing;
  readonly counters: CounterHandle;
  readonly partBytes: number;
  readonly bufferCount: number;
  readonly words: SharedArrayBuffer;
  readonly records: SharedArrayBuffer;
  readonly buffers: SharedArrayBuffer;
}

/** Opens a bucket for this thread. */
export async function openBucket(
  place: S3Place,
  signing: Signing,
  options: ClientOptions = {},
): Promise<Bucket> {
  const signer = await openSigner(signing.credentials, signing.region);
  return new Bucket(place, new Client({ signer, ...options }));
}

/** The buffers and words of an upload, as one thread sees them. */
class Parts {
  readonly description: UploadDescription;
  readonly words: Int32Array;
  private readonly records: DataView;
  private readonly base: number;

  constructor(description: UploadDescription) {
    this.description = description;
    this.words = new Int32Array(description.words);
    this.records = new DataView(description.records);
    this.base = addressOf(new Uint8Array(description.buffers));
  }

  buffer(part: number): Uint8Array {
    const { partBytes, bufferCount, buffers } = this.description;
    return new Uint8Array(buffers, (part % bufferCount) * partBytes, partBytes);
  }

  addressOf(part: number): number {
    const { partBytes, bufferCount } = this.description;
    return this.base + (part % bufferCount) * partBytes;
  }

  /** Resolves when the part has its buffer. @throws the upload's failure */
  async own(part: number): Promise<void> {
    const { words, description } = this;
    const at = OWNERS + (part % description.bufferCount);
    for (;;) {
      const owner = Atomics.load(words, at);
      if (this.hasFailed) throw this.failure();
      if (owner === part) return;
      const wait = Atomics.waitAsync(words, at, owner, WAIT_MS);
      if (wait.async) await wait.value;
    }
  }

  get hasFailed(): boolean {
    return Atomics.load(this.words, FAILED) !== 0;
  }

  /** Counts bytes written to a part. Returns how many the part has now. */
  fill(part: number, lengthBytes: number): number {
    const { bufferCount } = this.description;
    const at = OWNERS + bufferCount + (part % bufferCount);
    return Atomics.add(this.words, at, lengthBytes) + lengthBytes;
  }

  /** Called when the part was sent: its buffer goes to the next part that uses it. */
  pass(part: number, sent: UploadedPart): void {
    const { bufferCount } = this.description;
    this.writeRecord(part, sent);
    this.buffer(part).fill(0);
    const at = OWNERS + (part % bufferCount);
    Atomics.store(this.words, at + bufferCount, 0);
    Atomics.store(this.words, at, part + bufferCount);
    Atomics.notify(this.words, at);
  }

  /** Ends the upload for all threads, with the first error that one of them reports. */
  fail(error: Error): void {
    const { None, UnderWay, Done } = Creation;
    if (Atomics.compareExchange(this.words, FAILED, None, UnderWay) === None) {
      const { message, failure, url, status, s3Code } = error as Partial<RemoteError> & Error;
      const told = { message: message.slice(0, 1000), failure, url, status, s3Code };
      this.writeText(UPLOAD_ID_BYTES, JSON.stringify(told), FAILURE_BYTES - 4);
      Atomics.store(this.words, FAILED, Done);
    }
    for (let buffer = 0; buffer < this.description.bufferCount; buffer++)
      Atomics.notify(this.words, OWNERS + buffer);
  }

  /** The failure of the upload. Precondition: `hasFailed`. */
  failure(): Error {
    if (Atomics.load(this.words, FAILED) !== Creation.Done)
      return new Error("Another part could not be sent");
    const told = JSON.parse(this.readText(UPLOAD_ID_BYTES)) as RemoteErrorDetails & Error;
    if (told.failure === undefined) return new Error(told.message);
    return new RemoteError(told.message.replace(` (${told.url})`, ""), told);
  }

  /** The id of the upload; null if there is none. */
  get uploadId(): string | null {
    return Atomics.load(this.words, CREATED) === Creation.Done ? this.readText(0) : null;
  }

  /** The id of the upload, which one thread creates. @throws {RemoteError} */
  async createOnce(bucket: Bucket): Promise<string> {
    for (;;) {
      const { None, UnderWay, Done } = Creation;
      const state = Atomics.compareExchange(this.words, CREATED, None, UnderWay);
      if (state === Done) return this.readText(0);
      if (state === UnderWay) {
        const wait = Atomics.waitAsync(this.words, CREATED, UnderWay, WAIT_MS);
        if (wait.async) await wait.value;
        if (this.hasFailed) throw this.failure();
        continue;
      }
      let next: number = None;
      try {
        const uploadId = await bucket.createUpload(this.description.key);
        this.writeText(0, uploadId, UPLOAD_ID_BYTES - 4);
        next = Done;
        return uploadId;
      } finally {
        Atomics.store(this.words, CREATED, next);
        Atomics.notify(this.words, CREATED);
      }
    }
  }

  private writeRecord(part: number, { etag, crc }: UploadedPart): void {
    this.writeText(RECORDS_AT + part * RECORD_BYTES, `${crc} ${etag}`, ETAG_BYTES_MAX);
  }

  private writeText(at: number, text: string, bytesMax: number): void {
    const bytes = new TextEncoder().encode(text);
    if (bytes.length > bytesMax)
      throw new RangeError(`Expected a text of at most ${bytesMax} bytes, got ${text}`);
    this.records.setUint32(at, bytes.length, true);
    new Uint8Array(this.records.buffer).set(bytes, at + 4);
  }

  private readText(at: number): string {
    const bytes = new Uint8Array(this.records.buffer, at + 4, this.records.getUint32(at, true));
    return new TextDecoder().decode(bytes.slice());
  }

  readRecord(part: number): UploadedPart {
    const [crc, ...etag] = this.readText(RECORDS_AT + part * RECORD_BYTES).split(" ");
    if (crc === undefined || crc === "") throw new Error(`Part ${part} was not sent`);
    return { number: part + 1, crc, etag: etag.join(" ") };
  }
}

/** A thread's way to write contents. */
export class UploadWriter {
  /** This thread's requests continue while it waits for others. */
  readonly mayBlock = false;
  private readonly parts: Parts;
  private readonly bucket: Promise<Bucket>;
  private readonly sending = new Set<Promise<void>>();
  private readonly abort = new AbortController();
  private failure: unknown;

  constructor(description: UploadDescription) {
    const { place, signing, counters } = description;
    this.parts = new Parts(description);
    this.bucket = openBucket(place, signing, { counters, signal: this.abort.signal });
  }

  /** Parts take room only when they are written. */
  reserve(_endBytes: number): void {}

  /**
   * Copies memory to the parts that [offset, offset + lengthBytes) covers. The memory may change
   * when this has resolved. @throws the error of sending a part
   */
  async write(address: number, lengthBytes: number, offset: number): Promise<void> {
    const { partBytes } = this.parts.description;
    const end = offset + lengthBytes;
    for (let at = offset; at < end; ) {
      const part = Math.floor(at / partBytes);
      const to = Math.min(end, (part + 1) * partBytes);
      if (this.failure !== undefined) throw this.failure;
      await this.parts.own(part);
      copyMemory(
        this.parts.addressOf(part) + (at - part * partBytes),
        address + (at - offset),
        to - at,
      );
      // The rest of the last page counts, because nothing else is written there.
      const filledBytes = Math.ceil(to / PAGE_SIZE) * PAGE_SIZE - at;
      if (this.parts.fill(part, filledBytes) === partBytes) this.send(part);
      at = to;
    }
  }

  private send(part: number): void {
    const sending = this.sendPart(part).catch((error: unknown) => {
      this.failure ??= error;
      this.parts.fail(error as Error);
    });
    this.sending.add(sending);
    void sending.then(() => this.sending.delete(sending));
  }

  private async sendPart(part: number): Promise<void> {
    const { key } = this.parts.description;
    const bucket = await this.bucket;
    const uploadId = await this.parts.createOnce(bucket);
    // A copy, because requests accept no shared memory.
    const body = this.parts.buffer(part).slice();
    this.parts.pass(part, await bucket.uploadPart({ key, uploadId }, part + 1, body));
  }

  /** Resolves when the parts that this thread sends have been sent. @throws their error */
  async close(): Promise<void> {
    const watch = setInterval(() => {
      if (this.parts.hasFailed) this.abort.abort(this.parts.failure());
    }, WAIT_MS);
    try {
      await Promise.all(this.sending);
    } finally {
      clearInterval(watch);
    }
    if (this.failure !== undefined) throw this.failure;
  }
}

/** The upload of a page file, for the thread that saves. */
export class PageUpload {
  readonly description: UploadDescription;
  private readonly bucket: Bucket;
  private readonly parts: Parts;
  /** True once the object may exist. */
  private isComplete = false;
  private isEnded = false;

  private constructor(description: UploadDescription, bucket: Bucket) {
    this.description = description;
    this.bucket = bucket;
    this.parts = new Parts(description);
  }

  /**
   * `mostBytes`: the most that may be written, if known. There is room for up to nine times as
   * much.
   */
  static begin(
    bucket: Bucket,
    key: string,
    mostBytes: number,
    shared: { readonly signing: Signing; readonly counters: CounterHandle },
  ): PageUpload {
    const units = Math.ceil(mostBytes / PARTS_EXPECTED / HUGE_PAGE_SIZE);
    const partBytes = Math.max(PART_BYTES_MIN, units * HUGE_PAGE_SIZE);
    const bufferCount = Math.max(BUFFERS_MIN, Math.floor(BUFFERS_BYTES / partBytes));
    const words = new SharedArrayBuffer(4 * (OWNERS + 2 * bufferCount));
    new Int32Array(words).set(
      Array.from({ length: bufferCount }, (_, buffer) => buffer),
      OWNERS,
    );
    const description: UploadDescription = {
      kind: "s3",
      place: bucket.place,
      key,
      ...shared,
      partBytes,
      bufferCount,
      words,
      records: new SharedArrayBuffer(RECORDS_AT + PARTS_MAX * RECORD_BYTES),
      buffers: new SharedArrayBuffer(partBytes * bufferCount),
    };
    return new PageUpload(description, bucket);
  }

  /**
   * Makes the object from the contents and `trailer`. Precondition: all writers are closed.
   * @throws {RemoteError}
   */
  async complete(contentBytes: number, trailer: Uint8Array): Promise<void> {
    const { key, partBytes } = this.description;
    const { uploadId } = this.parts;
    const last = Math.floor(contentBytes / partBytes);
    const tailBytes = contentBytes - last * partBytes;
    const body = new Uint8Array(tailBytes + trailer.byteLength);
    body.set(this.parts.buffer(last).subarray(0, tailBytes));
    body.set(trailer, tailBytes);
    if (uploadId === null) {
      if (last > 0) throw new Error(`Parts of ${contentBytes} bytes are missing`);
      // Also if the answer is lost.
      this.isComplete = true;
      return this.bucket.put(key, body);
    }
    const upload = { key, uploadId };
    const sent = Array.from({ length: last }, (_, part) => this.parts.readRecord(part));
    sent.push(await this.bucket.uploadPart(upload, last + 1, body));
    this.isComplete = true;
    await completeUpload(this.bucket, upload, sent, contentBytes + trailer.byteLength);
    this.isEnded = true;
  }

  /** Ends the requests of all writers, because the upload is not needed any more. */
  stop(): void {
    this.parts.fail(new Error("The save has ended"));
  }

  /** Removes all sent parts, complete or not. Precondition: no manifest names the page file. */
  async remove(): Promise<void> {
    await this.abort();
    if (this.isComplete) await this.bucket.delete(this.description.key);
  }

  /** Removes all sent parts of a page file that is not complete. Idempotent. */
  async abort(): Promise<void> {
    const { uploadId } = this.parts;
    if (this.isEnded || uploadId === null) return;
    this.isEnded = true;
    await this.bucket.abortUpload(this.description.key, uploadId);
  }
}
