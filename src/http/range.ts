/**
 * Reads a range of an object, and checks every answer: status, Content-Range, total size, length
 * and ETag. A server or a proxy may answer a range with the whole object, with another range, or
 * with bytes of an object that has replaced the opened one.
 */
import type { Answer } from "./answer.ts";
import type { Client, SendOptions } from "./client.ts";
import { Counter } from "./counters.ts";

/** Identifies one version of an object. postMessage can copy it. */
export interface ObjectIdentity {
  readonly sizeBytes: number;
  /** Null for servers without ETags. */
  readonly etag: string | null;
  /** The Last-Modified header. Null for servers without it. */
  readonly modified: string | null;
}

/** Bytes [start, end) of the object at `url`. */
export interface RangeRequest {
  readonly url: string;
  readonly start: number;
  readonly end: number;
  /** Undefined for the first read, which finds it out. */
  readonly identity?: ObjectIdentity | undefined;
}

/**
 * Passes each piece of [start, end) to `take` with its offset in the range. A retry starts again at
 * offset 0. Returns the identity of the object.
 *
 * @throws {RemoteError} "changed" if the object is not that of `identity`
 */
export function getRange(
  client: Client,
  request: RangeRequest,
  take: (piece: Uint8Array, offset: number) => void,
  options?: SendOptions,
): Promise<ObjectIdentity> {
  const { url, start, end } = request;
  const headers = { range: `bytes=${start}-${end - 1}`, ...ifMatch(request.identity) };
  const consume = async (answer: Answer): Promise<ObjectIdentity> => {
    const range = checkRange(answer, request);
    const lengthBytes = end - start;
    let offset = 0;
    await answer.read(lengthBytes, (piece) => {
      take(piece, offset);
      offset += piece.byteLength;
    });
    if (offset !== lengthBytes)
      throw answer.error("truncated", `Expected ${lengthBytes} bytes, got ${offset}`);
    client.counters[Counter.ReceivedBytes]! += lengthBytes;
    return range.identity;
  };
  return client.send({ method: "GET", url, headers }, consume, options);
}

/** The first `limitBytes` of an object of unknown size, or all of it if it is smaller. */
export async function getStart(
  client: Client,
  url: string,
  limitBytes: number,
  options?: SendOptions,
): Promise<{ readonly identity: ObjectIdentity; readonly bytes: Uint8Array }> {
  const headers = { range: `bytes=0-${limitBytes - 1}` };
  const consume = async (answer: Answer) => {
    const { start, end, identity } = rangeOf(answer);
    const expectedEnd = Math.min(limitBytes, identity.sizeBytes);
    if (start !== 0 || end !== expectedEnd)
      throw answer.error(
        "wrong range",
        `Expected bytes [0, ${expectedEnd}), got [${start}, ${end})`,
      );
    const bytes = await answer.bytes(end);
    if (bytes.byteLength !== end)
      throw answer.error("truncated", `Expected ${end} bytes, got ${bytes.byteLength}`);
    client.counters[Counter.ReceivedBytes]! += end;
    return { identity, bytes };
  };
  return client.send({ method: "GET", url, headers }, consume, options);
}

function ifMatch(identity: ObjectIdentity | undefined): Record<string, string> {
  // A weak ETag never matches If-Match (RFC 9110, 13.1.1), so the answer's ETag is compared
  // instead.
  const { etag = null } = identity ?? {};
  return etag === null || etag.startsWith("W/") ? {} : { "if-match": etag };
}

interface AnsweredRange {
  readonly start: number;
  readonly end: number;
  readonly identity: ObjectIdentity;
}

/** @throws {RemoteError} for an answer that is not a range */
function rangeOf(answer: Answer): AnsweredRange {
  const { status, headers, lengthBytes } = answer;
  if (status !== 206)
    throw answer.error("refused", `The server answered a range with ${status}, not 206`);
  const encoding = headers.get("content-encoding");
  if (encoding !== null && encoding !== "identity" && encoding !== "aws-chunked")
    throw answer.error("malformed", `Expected contents as they are, got encoding ${encoding}`);
  const text = headers.get("content-range") ?? "";
  const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(text);
  if (match === null)
    throw answer.error("malformed", `Content-Range '${text}' is not a range of bytes`);
  const [start, end, sizeBytes] = [Number(match[1]), Number(match[2]) + 1, Number(match[3])];
  if (end <= start || end > sizeBytes)
    throw answer.error("malformed", `Content-Range '${text}' is out of bounds`);
  if (lengthBytes !== undefined && lengthBytes !== end - start)
    throw answer.error(
      lengthBytes < end - start ? "short" : "long",
      `Expected ${end - start} bytes, ${lengthBytes} are announced`,
    );
  const identity = {
    sizeBytes,
    etag: headers.get("etag"),
    modified: headers.get("last-modified"),
  };
  return { start, end, identity };
}

function checkRange(answer: Answer, request: RangeRequest): AnsweredRange {
  const range = rangeOf(answer);
  const { start, end, identity: expected } = request;
  checkIdentity(answer, expected, range.identity);
  if (range.start === start && range.end === end) return range;
  const isShort = range.start === start && range.end < end;
  throw answer.error(
    isShort ? "short" : "wrong range",
    `Expected bytes [${start}, ${end}), got [${range.start}, ${range.end})`,
  );
}

function checkIdentity(
  answer: Answer,
  expected: ObjectIdentity | undefined,
  found: ObjectIdentity,
): void {
  if (expected === undefined) return;
  const isSame =
    expected.etag === found.etag &&
    expected.sizeBytes === found.sizeBytes &&
    // A server without ETags has only this.
    (expected.etag !== null || expected.modified === found.modified);
  if (!isSame)
    throw answer.error(
      "changed",
      `The object has changed: it had ${expected.sizeBytes} bytes and ETag ${expected.etag}, ` +
        `now ${found.sizeBytes} and ${found.etag}`,
    );
}
