/**
 * Answer: the status, headers and body of one HTTP answer. The body is read at most once and
 * counted. It is aborted if it stalls or is longer than allowed.
 */
import { RemoteError, type RemoteFailure } from "../errors/remote-errors.ts";
import { ConnectionLostError } from "./connection.ts";
import type { Incoming } from "./incoming.ts";
import { ProtocolError } from "./message.ts";
import { shownUrl } from "./shown-url.ts";

/** Time limits of an answer. */
export interface Patience {
  /** For the first byte of the answer. */
  readonly answerMs: number;
  /** In each such period at least STALL_BYTES arrive, or the answer ends. */
  readonly stallMs: number;
}

export const PATIENCE: Patience = { answerMs: 20_000, stallMs: 10_000 };
const STALL_BYTES = 2 ** 14;

export class Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly url: string;
  private readonly incoming: Incoming;
  private readonly patience: Patience;
  private readonly abort: (reason: unknown) => void;

  constructor(
    incoming: Incoming,
    url: string,
    patience: Patience,
    abort: (reason: unknown) => void,
  ) {
    this.incoming = incoming;
    this.status = incoming.status;
    this.headers = incoming.headers;
    this.url = shownUrl(url);
    this.patience = patience;
    this.abort = abort;
  }

  /** The announced length of the body, or undefined. */
  get lengthBytes(): number | undefined {
    const text = this.headers.get("content-length");
    return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
  }

  error(failure: RemoteFailure, message: string, more: { cause?: unknown; s3Code?: string } = {}) {
    return new RemoteError(message, { failure, url: this.url, status: this.status, ...more });
  }

  /**
   * Passes each piece of the body to `take`. Returns the number of bytes.
   * @throws {RemoteError} "long" beyond `limitBytes`, "stalled", or "truncated"
   */
  async read(limitBytes: number, take: (piece: Uint8Array) => void): Promise<number> {
    if (!this.incoming.hasBody) return 0;
    const watch = this.watch();
    try {
      await this.incoming.read((piece) => {
        watch.bytes += piece.byteLength;
        if (watch.bytes > limitBytes)
          throw this.error("long", `Expected ${limitBytes} bytes, got at least ${watch.bytes}`);
        take(piece);
      });
    } catch (error) {
      this.abort(error);
      throw this.failureOf(error, watch.bytes);
    } finally {
      clearInterval(watch.timer);
    }
    const announced = this.lengthBytes;
    if (announced !== undefined && watch.bytes !== announced)
      throw this.error("truncated", `Expected ${announced} bytes, got ${watch.bytes}`);
    return watch.bytes;
  }

  /** Aborts the answer when it stalls. */
  private watch(): { bytes: number; timer: Timer | undefined } {
    const { stallMs } = this.patience;
    const watch: { bytes: number; timer: Timer | undefined } = { bytes: 0, timer: undefined };
    let before = 0;
    watch.timer = setInterval(() => {
      if (watch.bytes - before < STALL_BYTES)
        this.abort(
          this.error("stalled", `Got ${watch.bytes - before} bytes in the last ${stallMs} ms`),
        );
      before = watch.bytes;
    }, stallMs);
    return watch;
  }

  /**
   * RemoteErrors and the reasons of aborts stay as they are. Any other error means that the
   * connection ended.
   */
  private failureOf(error: unknown, bytes: number): unknown {
    if (error instanceof ProtocolError) return this.error("malformed", error.message);
    const isFetch = error instanceof TypeError && "code" in error;
    if (!isFetch && !(error instanceof ConnectionLostError)) return error;
    const after = bytes === 0 ? "within the answer" : `after ${bytes} bytes`;
    return this.error("truncated", `The connection ended ${after}`, {
      cause: new Error(error.message),
    });
  }

  /** @throws as `read` */
  async bytes(limitBytes: number): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    const total = await this.read(limitBytes, (piece) => pieces.push(piece));
    const whole = new Uint8Array(total);
    let at = 0;
    for (const piece of pieces) {
      whole.set(piece, at);
      at += piece.byteLength;
    }
    return whole;
  }

  /** @throws as `read` */
  async text(limitBytes = 2 ** 22): Promise<string> {
    return new TextDecoder().decode(await this.bytes(limitBytes));
  }

  /** Ends the answer unread. */
  discard(): void {
    this.abort(this.error("malformed", "The answer was not needed"));
  }
}
