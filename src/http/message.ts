/**
 * MessageParser: one answer of HTTP/1.1 in the bytes of a connection (RFC 9112). It returns the
 * head once, and each piece of the body as it comes. It keeps no byte of the body.
 *
 * A length must be unambiguous. A body with two different lengths, or with a length and chunks,
 * could hide another answer after it, so it is an error or ends the connection.
 */

/** A server that sends more than this before the body is not supported. */
const HEAD_BYTES_MAX = 2 ** 16;
/** The line before a chunk: its length and extensions. */
const CHUNK_LINE_BYTES_MAX = 1024;

export interface MessageHead {
  readonly status: number;
  readonly headers: Headers;
  readonly hasBody: boolean;
}

/** The bytes are not HTTP/1.1. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError";
}

type State = "head" | "length" | "chunk line" | "chunk" | "chunk end" | "trailer" | "close" | "end";

export class MessageParser {
  head: MessageHead | undefined;
  private readonly isHead: boolean;
  private state: State = "head";
  private text = "";
  /** Bytes left of the body, or of a chunk. */
  private left = 0;
  private keepsAlive = false;

  /** @param method of the request: it decides whether the answer may have a body */
  constructor(method: string) {
    this.isHead = method === "HEAD";
  }

  /** True when the answer is complete. */
  get hasEnded(): boolean {
    return this.state === "end";
  }

  /** True if the connection may carry another request. Precondition: `hasEnded`. */
  get isReusable(): boolean {
    return this.keepsAlive;
  }

  /** The connection has ended. True if that is the end of the body. */
  close(): boolean {
    if (this.state === "close") this.state = "end";
    return this.hasEnded;
  }

  /**
   * Takes bytes, and passes those of the body to `take`. @throws {ProtocolError} @throws as `take`
   */
  push(bytes: Uint8Array, take: (piece: Uint8Array) => void): void {
    let at = 0;
    while (at < bytes.byteLength) {
      if (this.state === "end") {
        // Bytes after the answer: no later answer of the connection could be trusted.
        this.keepsAlive = false;
        return;
      }
      if (this.state === "close") {
        take(bytes.subarray(at));
        return;
      }
      at = this.isInBody ? this.takeBody(bytes, at, take) : this.takeLine(bytes, at);
    }
  }

  private get isInBody(): boolean {
    return this.state === "length" || this.state === "chunk";
  }

  private takeBody(bytes: Uint8Array, at: number, take: (piece: Uint8Array) => void): number {
    const end = Math.min(bytes.byteLength, at + this.left);
    this.left -= end - at;
    if (this.left === 0) this.state = this.state === "chunk" ? "chunk end" : "end";
    take(bytes.subarray(at, end));
    return end;
  }

  /** Takes bytes up to the end of a line, or of the head. */
  private takeLine(bytes: Uint8Array, at: number): number {
    const newline = bytes.indexOf(0x0a, at);
    const end = newline < 0 ? bytes.byteLength : newline + 1;
    this.text += Buffer.from(bytes.buffer, bytes.byteOffset + at, end - at).toString("latin1");
    const limit = this.state === "head" ? HEAD_BYTES_MAX : CHUNK_LINE_BYTES_MAX;
    if (this.text.length > limit) throw new ProtocolError(`A head has more than ${limit} bytes`);
    if (newline >= 0) this.endLine();
    return end;
  }

  private endLine(): void {
    const { text } = this;
    if (this.state === "head") {
      if (!/(^|\n)\r?\n$/.test(text)) return;
      this.text = "";
      this.readHead(text);
      return;
    }
    this.text = "";
    const line = text.replace(/\r?\n$/, "");
    if (this.state === "chunk end") {
      if (line !== "") throw new ProtocolError("A chunk is longer than its length");
      this.state = "chunk line";
    } else if (this.state === "trailer") {
      if (line === "") this.state = "end";
    } else {
      const length = /^([0-9a-fA-F]{1,12})[ \t]*(;|$)/.exec(line)?.[1];
      if (length === undefined) throw new ProtocolError("A chunk has no length");
      this.left = Number.parseInt(length, 16);
      this.state = this.left === 0 ? "trailer" : "chunk";
    }
  }

  private readHead(text: string): void {
    const [first = "", ...lines] = text.trimEnd().split(/\r?\n/);
    const match = /^HTTP\/1\.([01]) (\d{3})(?: |$)/.exec(first);
    if (match === null) throw new ProtocolError("The answer is not HTTP/1.1");
    const status = Number(match[2]);
    const headers = readHeaders(lines);
    // An interim answer: the final one follows.
    if (status >= 100 && status < 200) {
      if (status === 101) throw new ProtocolError("The server changes the protocol");
      return;
    }
    const options = (headers.get("connection") ?? "").toLowerCase();
    this.keepsAlive = match[1] === "1" && !/(^|[ ,])close($|[ ,])/.test(options);
    const hasBody = !this.isHead && status !== 204 && status !== 304;
    this.head = { status, headers, hasBody };
    this.state = hasBody ? this.bodyState(headers) : "end";
  }

  private bodyState(headers: Headers): State {
    const coding = headers.get("transfer-encoding")?.trim().toLowerCase();
    const length = headers.get("content-length");
    if (coding !== undefined) {
      if (coding !== "chunked") throw new ProtocolError(`Unknown transfer coding '${coding}'`);
      if (length !== null) this.keepsAlive = false;
      return "chunk line";
    }
    if (length === null) {
      this.keepsAlive = false;
      return "close";
    }
    if (!/^\d{1,15}$/.test(length)) throw new ProtocolError(`Ambiguous length '${length}'`);
    this.left = Number(length);
    return this.left === 0 ? "end" : "length";
  }
}

/** @throws {ProtocolError} */
function readHeaders(lines: readonly string[]): Headers {
  const headers = new Headers();
  for (const line of lines) {
    const colon = line.indexOf(":");
    const name = line.slice(0, Math.max(0, colon));
    if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name))
      throw new ProtocolError("A header has no name");
    // Two lengths become one value with a comma, which is refused.
    headers.append(name, line.slice(colon + 1).trim());
  }
  return headers;
}
