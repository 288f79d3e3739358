/**
 * Connection: one connection to a server, in this thread's event loop, that carries one request at
 * a time (HTTP/1.1). Pieces of a body go from the socket to their destination in one step.
 *
 * It replaces `fetch`, because all requests of a process share the one HTTP thread of `fetch`,
 * which copies a body three times (docs/decisions/remote.md).
 */
import net from "node:net";
import tls from "node:tls";
import type { Incoming, Outgoing } from "./incoming.ts";
import { MessageParser } from "./message.ts";

/** The request under way. */
interface Exchange {
  readonly parser: MessageParser;
  readonly head: PromiseWithResolvers<Incoming>;
  readonly end: PromiseWithResolvers<void>;
  /** The destination of pieces. Until it is set, they are kept in `early`. */
  take: ((piece: Uint8Array) => void) | undefined;
  readonly early: Uint8Array[];
  readonly stopListening: () => void;
}

/** The connection was closed before it answered. An idle connection may be closed at any time. */
export class ConnectionLostError extends Error {
  override readonly name = "ConnectionLostError";
}

export class Connection {
  /** True once it cannot carry a request any more. */
  isClosed = false;
  private socket: net.Socket | undefined;
  private current: Exchange | undefined;
  private readonly host: string;
  private readonly onIdle: (connection: Connection) => void;

  private constructor(host: string, onIdle: (connection: Connection) => void) {
    this.host = host;
    this.onIdle = onIdle;
  }

  /**
   * Connects, and checks the server's certificate. `onIdle` is called each time an answer has ended
   * and another request may be sent.
   * @throws {Error} with the system's or TLS's `code`
   * @throws the signal's reason
   */
  static async open(
    url: URL,
    onIdle: (connection: Connection) => void,
    signal?: AbortSignal,
  ): Promise<Connection> {
    const connection = new Connection(url.host, onIdle);
    const ready = Promise.withResolvers<void>();
    const onAbort = () => {
      connection.close();
      ready.reject(signal?.reason);
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      signal?.throwIfAborted();
      connection.connect(url, ready);
      await ready.promise;
      // Only a request under way keeps the process alive.
      connection.socket!.unref();
      return connection;
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  private connect(url: URL, ready: PromiseWithResolvers<void>): void {
    const isSecure = url.protocol === "https:";
    const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
    const port = Number(url.port) || (isSecure ? 443 : 80);
    const socket = isSecure
      ? tls.connect({ host, port, servername: net.isIP(host) === 0 ? host : "" })
      : net.connect({ host, port });
    this.socket = socket;
    socket.setNoDelay(true);
    let failure: Error | undefined;
    socket.once(isSecure ? "secureConnect" : "connect", () => ready.resolve());
    socket.on("data", (bytes: Buffer) => this.receive(bytes));
    socket.on("error", (error) => {
      failure = error;
    });
    socket.on("close", () => {
      ready.reject(failure ?? new ConnectionLostError("The connection was closed"));
      this.lose(failure);
    });
  }

  /**
   * Sends a request without a body. Resolves when the head of the answer is there. Precondition: no
   * request is under way.
   *
   * @throws {ConnectionLostError} if the server closed the connection
   * @throws {ProtocolError}
   * @throws the signal's reason
   */
  async send({ method, url, headers, signal }: Outgoing): Promise<Incoming> {
    const text = requestText(method, new URL(url), this.host, headers);
    const onAbort = () => this.fail(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    const exchange: Exchange = {
      parser: new MessageParser(method),
      head: Promise.withResolvers<Incoming>(),
      end: Promise.withResolvers<void>(),
      take: undefined,
      early: [],
      stopListening: () => signal.removeEventListener("abort", onAbort),
    };
    // An answer whose body is not read may fail without a reader.
    exchange.end.promise.then(undefined, () => undefined);
    this.current = exchange;
    this.socket!.ref();
    if (signal.aborted) onAbort();
    else this.socket!.write(text, "latin1");
    return exchange.head.promise;
  }

  private receive(bytes: Uint8Array): void {
    const { current } = this;
    // No request is under way, so the connection cannot be used any more.
    if (current === undefined) {
      this.close();
      return;
    }
    const { parser, early } = current;
    const hadHead = parser.head !== undefined;
    try {
      parser.push(bytes, (piece) => {
        if (current.take === undefined) early.push(piece);
        else current.take(piece);
      });
    } catch (error) {
      this.fail(error);
      return;
    }
    if (!hadHead && parser.head !== undefined) this.giveHead(current);
    if (parser.hasEnded) this.finish();
  }

  private giveHead(exchange: Exchange): void {
    const { status, headers, hasBody } = exchange.parser.head!;
    const read = async (take: (piece: Uint8Array) => void): Promise<void> => {
      for (const piece of exchange.early.splice(0)) take(piece);
      exchange.take = take;
      await exchange.end.promise;
    };
    exchange.head.resolve({ status, headers, hasBody, read });
  }

  /** The answer has ended. */
  private finish(): void {
    const { parser, end, stopListening } = this.current!;
    this.current = undefined;
    stopListening();
    end.resolve();
    if (!parser.isReusable) this.close();
    this.socket!.unref();
    if (!this.isClosed) this.onIdle(this);
  }

  /** The server has closed the connection. */
  private lose(error?: Error): void {
    this.isClosed = true;
    const { current } = this;
    if (current === undefined) return;
    if (current.parser.close()) this.finish();
    else this.fail(new ConnectionLostError("The connection was closed", { cause: error }));
  }

  /** Ends the request with an error, and the connection with it. */
  private fail(error: unknown): void {
    const { current } = this;
    this.current = undefined;
    this.close();
    current?.stopListening();
    current?.head.reject(error);
    current?.end.reject(error);
  }

  /** Closes the connection. Idempotent. Precondition: no request is under way. */
  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.socket?.destroy();
  }
}

/** @throws {TypeError} for a header that would end its line */
function requestText(
  method: string,
  url: URL,
  host: string,
  headers: Readonly<Record<string, string>>,
): string {
  const lines = [`${method} ${url.pathname}${url.search} HTTP/1.1`, `host: ${host}`];
  for (const [name, value] of Object.entries(headers)) {
    if (/[^\t\x20-\x7e]/.test(name + value))
      throw new TypeError(
        `Expected header ${JSON.stringify(name)} to have visible characters only`,
      );
    lines.push(`${name}: ${value}`);
  }
  return `${lines.join("\r\n")}\r\n\r\n`;
}
