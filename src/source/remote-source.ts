/**
 * RemoteSource: contents in objects of S3 or files of an HTTP server, read by ranges.
 *
 * Each reading thread sends its own requests and signs them itself. Each request has the identity
 * of the object, so all reads of a load see the same bytes or fail. Background reads share a window
 * that adapts to the server. Reads on demand do not wait for them, and may be sent twice.
 */
import type { RemoteError } from "../errors/remote-errors.ts";
import { Client } from "../http/client.ts";
import type { CounterHandle } from "../http/counters.ts";
import { Hedging } from "../http/hedge.ts";
import { getRange, type ObjectIdentity } from "../http/range.ts";
import { openSigner, type Signing } from "../http/sign.ts";
import { RequestWindow } from "../http/window.ts";
import { HUGE_PAGE_SIZE } from "../pages/units.ts";
import { type CacheFiles, CacheWriter } from "./cache-writer.ts";
import { AsyncReader, type ContentReader, type ContentRequest } from "./async-reader.ts";
import type { ReaderUse, SourceReader } from "./reader.ts";

/** An object or file with contents. */
export interface RemoteContent {
  readonly url: string;
  readonly identity: ObjectIdentity;
}

/** Contents at URLs. */
export interface RemoteSource {
  readonly kind: "remote";
  readonly contents: readonly RemoteContent[];
  /** Null: requests are not signed. */
  readonly signing: Signing | null;
  readonly counters: CounterHandle;
  /** Files to which readers write all that they read, if there is a cache. */
  readonly cache?: CacheFiles | null;
}

/** The most requests of one thread: 64 MiB of background reads. */
export const BACKGROUND_REQUESTS = 32;
/** Reads in flight: those of neighbouring bytes share a request. */
const BACKGROUND_READS = 128;
export const DEMAND_READS = 32;

export async function openRemoteReader(
  source: RemoteSource,
  use: ReaderUse,
): Promise<SourceReader> {
  const { signing, counters } = source;
  const signer =
    signing === null ? undefined : await openSigner(signing.credentials, signing.region);
  const client = new Client({ signer, counters });
  return new AsyncReader(
    use === "demand" ? new DemandReader(source, client) : new BackgroundReader(source, client),
  );
}

abstract class RemoteReader implements ContentReader {
  abstract readonly capabilities: ContentReader["capabilities"];
  protected readonly client: Client;
  private readonly contents: readonly RemoteContent[];
  private readonly cache: CacheWriter | null;

  constructor({ contents, cache }: RemoteSource, client: Client) {
    this.contents = contents;
    this.client = client;
    this.cache = cache == null ? null : new CacheWriter(cache);
  }

  async read(request: ContentRequest): Promise<number> {
    const content = this.contents[request.content];
    if (content === undefined)
      throw new RangeError(
        `Expected content to be below ${this.contents.length}, got ${request.content}`,
      );
    const { sizeBytes } = content.identity;
    const lengthBytes = Math.min(request.lengthBytes, Math.max(0, sizeBytes - request.offset));
    if (lengthBytes === 0) return 0;
    await this.fill(content, { ...request, lengthBytes });
    if (!request.signal.aborted) this.cache?.write(request.content, request.offset, request.into);
    return lengthBytes;
  }

  protected abstract fill(content: RemoteContent, request: ContentRequest): Promise<unknown>;
}

interface Queued {
  readonly content: RemoteContent;
  readonly request: ContentRequest;
  readonly resolve: (answer: Promise<unknown>) => void;
}

class BackgroundReader extends RemoteReader {
  readonly capabilities = { readsInFlight: BACKGROUND_READS, readBytesMax: HUGE_PAGE_SIZE };
  private readonly window = new RequestWindow(BACKGROUND_REQUESTS);
  /** Reads of this turn. */
  private queued: Queued[] = [];
  private readonly onRetry = ({ failure }: RemoteError): void => {
    if (failure === "busy" || failure === "stalled") this.window.throttle();
  };

  get usefulReads(): number {
    return this.window.limit;
  }

  protected fill(content: RemoteContent, request: ContentRequest): Promise<unknown> {
    const { promise, resolve } = Promise.withResolvers<Promise<unknown>>();
    this.queued.push({ content, request, resolve });
    if (this.queued.length === 1) queueMicrotask(() => this.send());
    return promise;
  }

  /** Sends the reads of this turn: one request for those whose bytes follow one another. */
  private send(): void {
    const queued = this.queued.sort(
      (a, b) => a.request.content - b.request.content || a.request.offset - b.request.offset,
    );
    this.queued = [];
    for (let first = 0, next = 0; first < queued.length; first = next) {
      const { content, request } = queued[first]!;
      let lengthBytes = 0;
      for (next = first; next < queued.length; next++) {
        const read = queued[next]!;
        const isNext =
          read.content === content && read.request.offset === request.offset + lengthBytes;
        const isMore = lengthBytes + read.request.lengthBytes > HUGE_PAGE_SIZE;
        if (next > first && (!isNext || isMore)) break;
        lengthBytes += read.request.lengthBytes;
      }
      const some = queued.slice(first, next);
      const into = some.flatMap((read) => read.request.into);
      const answer = this.get(content, { ...request, into, lengthBytes });
      for (const { resolve } of some) resolve(answer);
    }
  }

  private get(content: RemoteContent, request: ContentRequest): Promise<number> {
    const { offset, lengthBytes, into, signal } = request;
    const range = { ...content, start: offset, end: offset + lengthBytes };
    const send = async () => {
      const scatter = new Scatter(into);
      const take = (piece: Uint8Array, at: number): void => scatter.write(piece, at);
      await getRange(this.client, range, take, { signal, onRetry: this.onRetry });
      return lengthBytes;
    };
    return this.window.run(send, signal, lengthBytes);
  }

  close(): void {
    this.window.release();
  }
}

class DemandReader extends RemoteReader {
  readonly capabilities = { readsInFlight: DEMAND_READS, readBytesMax: HUGE_PAGE_SIZE };
  private readonly hedging = new Hedging(this.client);

  /** Two answers may arrive at once, so each has a buffer, and the first one is copied. */
  protected async fill(content: RemoteContent, request: ContentRequest): Promise<void> {
    const { offset, lengthBytes, into, signal } = request;
    const range = { ...content, start: offset, end: offset + lengthBytes };
    const bytes = await this.hedging.run(async (own) => {
      const buffer = new Uint8Array(lengthBytes);
      const take = (piece: Uint8Array, at: number): void => buffer.set(piece, at);
      await getRange(this.client, range, take, { signal: own });
      return buffer;
    }, signal);
    new Scatter(into).write(bytes, 0);
  }
}

/** Writes pieces of a range into pieces of memory. */
class Scatter {
  private readonly into: readonly Uint8Array[];
  private readonly starts: readonly number[];

  constructor(into: readonly Uint8Array[]) {
    this.into = into;
    let start = 0;
    this.starts = into.map(({ byteLength }) => {
      start += byteLength;
      return start - byteLength;
    });
  }

  write(piece: Uint8Array, at: number): void {
    const end = at + piece.byteLength;
    for (const [i, memory] of this.into.entries()) {
      const start = this.starts[i]!;
      // The read has ended, so its memory is detached.
      if (memory.byteLength === 0) continue;
      const from = Math.max(at, start);
      const to = Math.min(end, start + memory.byteLength);
      if (from < to) memory.set(piece.subarray(from - at, to - at), from - start);
    }
  }
}
