/**
 * A small S3 server in this process that misbehaves on purpose: rules make it late, cut answers,
 * lose them, answer with other ranges, and ignore conditions as some stores do. It serves plain
 * HTTP ranges as well. It keeps objects in memory and checks checksums, conditions and part
 * numbers.
 */
import { once } from "node:events";
import http, { type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { answerS3, type Reply, type StoredObject, type Upload } from "./s3-protocol.ts";

/** The fault of a request. */
export interface Fault {
  readonly delayMs?: number;
  /** Answers with this status, and does no work. */
  readonly status?: number;
  readonly s3Code?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Does the work, then closes the connection without an answer. */
  readonly losesAnswer?: boolean;
  /** Closes the connection after this many bytes of the body. */
  readonly cutAfterBytes?: number;
  /** Sends this many bytes of the body, and nothing more. */
  readonly stallAfterBytes?: number;
  /** Sends the body in pieces of this size, one every 10 ms. */
  readonly dripBytes?: number;
  /** Moves the answered range by this many bytes. */
  readonly shiftBytes?: number;
  /** Answers with fewer bytes than the range has, with headers that say so. */
  readonly shortenBytes?: number;
  /** Sends more bytes than announced by Content-Range, without a Content-Length. */
  readonly extraBytes?: number;
  /** Answers a range with the whole object and 200. */
  readonly ignoresRange?: boolean;
  /** Changes a byte of the body. */
  readonly flipsByte?: boolean;
}

/**
 * Applies `fault` to requests that match, after `skip` of them, `times` times (default: always).
 */
export interface Rule {
  readonly method?: string;
  /** Matched against path and query. */
  readonly path?: RegExp;
  readonly skip?: number;
  readonly times?: number;
  readonly fault: Fault;
}

export interface SeenRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string | undefined>>;
}

interface ActiveRule {
  readonly rule: Rule;
  seen: number;
}

export class S3Server implements AsyncDisposable {
  readonly objects = new Map<string, StoredObject>();
  readonly uploads = new Map<string, Upload>();
  readonly seen: SeenRequest[] = [];
  /** Bytes of all bodies that it has answered with. */
  sentBytes = 0;
  /** Ignores conditions on writes, as Ceph's RGW does on CompleteMultipartUpload. */
  ignoresConditions = false;
  /** Added to the clock, so that objects look older. */
  clockMs = 0;
  /** Entries in each page of a listing. */
  listMax = 1000;
  private rules: ActiveRule[] = [];
  private readonly server = http.createServer((request, response) => {
    void this.handle(request, response);
  });

  static async start(): Promise<S3Server> {
    const server = new S3Server();
    server.server.listen(0, "127.0.0.1");
    await once(server.server, "listening");
    return server;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** Replaces all rules. */
  misbehave(...rules: Rule[]): void {
    this.rules = rules.map((rule) => ({ rule, seen: 0 }));
  }

  put(key: string, bytes: Uint8Array): StoredObject {
    const object = {
      bytes,
      etag: `"${Bun.hash.crc32(bytes).toString(16)}-${this.objects.size}"`,
      modifiedMs: Date.now() + this.clockMs,
    };
    this.objects.set(key, object);
    return object;
  }

  private faultOf(method: string, url: string): Fault {
    for (const active of this.rules) {
      const { rule } = active;
      if (rule.method !== undefined && rule.method !== method) continue;
      if (rule.path !== undefined && !rule.path.test(url)) continue;
      const number = active.seen++ - (rule.skip ?? 0);
      if (number >= 0 && number < (rule.times ?? Number.POSITIVE_INFINITY)) return rule.fault;
    }
    return {};
  }

  private async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = "", url = "" } = request;
    this.seen.push({ method, url, headers: request.headers as Record<string, string> });
    const fault = this.faultOf(method, url);
    const pieces: Buffer[] = [];
    try {
      for await (const piece of request) pieces.push(piece as Buffer);
    } catch {
      response.destroy();
      return;
    }
    if (fault.delayMs !== undefined) await Bun.sleep(fault.delayMs);
    const reply =
      fault.status === undefined
        ? answerS3(this, { method, url, headers: request.headers, body: Buffer.concat(pieces) })
        : refusal(fault);
    if (fault.losesAnswer === true) {
      request.socket.destroy();
      return;
    }
    if (method !== "HEAD") this.sentBytes += reply.body.length;
    if (!response.destroyed) await send(response, spoil(reply, fault), fault, method === "HEAD");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, "close");
  }
}

function refusal({ status = 500, s3Code, headers = {} }: Fault): Reply {
  const xml = s3Code === undefined ? "" : `<Error><Code>${s3Code}</Code></Error>`;
  return { status, headers, body: Buffer.from(xml) };
}

/** The bad answer that a fault makes of a good one. */
function spoil(reply: Reply, fault: Fault): Reply {
  const { status, whole, start = 0 } = reply;
  let { body } = reply;
  if (fault.flipsByte === true && body.length > 0) {
    body = Buffer.from(body);
    body[body.length >> 1]! ^= 1;
  }
  if (status !== 206 || whole === undefined)
    return { status, headers: { ...reply.headers, ...fault.headers }, body };
  if (fault.ignoresRange === true) {
    const { "content-range": _, ...headers } = reply.headers;
    return { status: 200, headers, body: whole };
  }
  const first = start + (fault.shiftBytes ?? 0);
  if (first !== start) body = whole.subarray(first, first + body.length);
  if (fault.shortenBytes !== undefined) body = body.subarray(0, -fault.shortenBytes);
  const range = `bytes ${first}-${first + body.length - 1}/${whole.length}`;
  if (fault.extraBytes !== undefined) body = Buffer.concat([body, Buffer.alloc(fault.extraBytes)]);
  return { status, headers: { ...reply.headers, "content-range": range, ...fault.headers }, body };
}

async function send(
  response: ServerResponse,
  { status, headers, body }: Reply,
  fault: Fault,
  isHead: boolean,
): Promise<void> {
  const chunked = fault.extraBytes !== undefined;
  const length = chunked ? {} : { "content-length": `${body.length}` };
  response.writeHead(status, { ...length, ...headers });
  if (isHead) {
    response.end();
  } else if (fault.cutAfterBytes !== undefined) {
    response.write(body.subarray(0, fault.cutAfterBytes));
    await Bun.sleep(20);
    response.destroy();
  } else if (fault.stallAfterBytes !== undefined) {
    response.write(body.subarray(0, fault.stallAfterBytes));
  } else if (fault.dripBytes !== undefined) {
    for (let at = 0; at < body.length && !response.destroyed; at += fault.dripBytes) {
      response.write(body.subarray(at, at + fault.dripBytes));
      await Bun.sleep(10);
    }
    response.end();
  } else {
    response.end(body);
  }
}
