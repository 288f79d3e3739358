/**
 * One request and its answer, without retry. Follows redirects itself: to the same host the request
 * is signed again; to another host it goes without credentials, and only reads go there.
 */
import { RemoteError } from "../errors/remote-errors.ts";
import { Answer, type Patience } from "./answer.ts";
import { ConnectionLostError } from "./connection.ts";
import { ProtocolError } from "./message.ts";
import { shownUrl } from "./shown-url.ts";
import type { Signer } from "./sign.ts";
import { sendRequest } from "./transport.ts";

export interface Request {
  readonly method: "GET" | "HEAD" | "PUT" | "POST" | "DELETE";
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | string;
}

export interface ExchangeOptions {
  readonly signer: Signer | undefined;
  readonly patience: Patience;
  readonly signal: AbortSignal | undefined;
}

const REDIRECTS_MAX = 5;
/** A body is sent at 32 KiB/s or more. */
const SLOWEST_BYTES_PER_MS = 32;

/**
 * Sends the request and passes the answer to `consume`, which may read its body. The connection is
 * closed if `consume` throws, or leaves an answer unread.
 *
 * @throws {RemoteError}
 * @throws the signal's reason
 * @throws the error of `consume`
 */
export async function exchange<Result>(
  request: Request,
  options: ExchangeOptions,
  consume: (answer: Answer) => Promise<Result>,
): Promise<Result> {
  const { signal } = options;
  signal?.throwIfAborted();
  const attempt = new AbortController();
  const onAbort = () => attempt.abort(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    const answer = await follow(request, options, attempt);
    return await consume(answer);
  } catch (error) {
    attempt.abort(error);
    throw error;
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

async function follow(
  request: Request,
  options: ExchangeOptions,
  attempt: AbortController,
): Promise<Answer> {
  let { url } = request;
  let { signer } = options;
  for (let redirects = 0; ; redirects++) {
    const answer = await ask({ ...request, url }, signer, options.patience, attempt);
    const location = answer.headers.get("location");
    const isRedirect = [301, 302, 303, 307, 308].includes(answer.status) && location !== null;
    if (!isRedirect) return answer;
    const next = URL.parse(location, url);
    if (next === null || redirects === REDIRECTS_MAX)
      throw answer.error("malformed", `Expected at most ${REDIRECTS_MAX} redirects`);
    checkRedirect(answer, request, new URL(url), next);
    if (next.host !== new URL(url).host) signer = undefined;
    url = next.href;
    await answer.bytes(2 ** 16);
  }
}

function checkRedirect(answer: Answer, request: Request, from: URL, to: URL): void {
  if (to.protocol !== from.protocol && to.protocol !== "https:")
    throw answer.error("refused", `Refused a redirect from ${from.protocol} to ${to.protocol}`);
  const isRead = request.method === "GET" || request.method === "HEAD";
  if (!isRead && to.host !== from.host)
    throw answer.error(
      "refused",
      `${request.method} was redirected to ${to.host}; set the region or endpoint of the bucket`,
    );
}

async function ask(
  request: Request,
  signer: Signer | undefined,
  patience: Patience,
  attempt: AbortController,
): Promise<Answer> {
  const { method, url, body } = request;
  const plain = { "accept-encoding": "identity", ...request.headers };
  const headers = signer === undefined ? plain : await signer({ method, url, headers: plain });
  const waitMs = patience.answerMs + (body?.length ?? 0) / SLOWEST_BYTES_PER_MS;
  const timer = setTimeout(() => {
    const message = `No answer to ${method} in ${Math.round(waitMs)} ms`;
    attempt.abort(new RemoteError(message, { failure: "stalled", url: shownUrl(url) }));
  }, waitMs);
  try {
    const { signal } = attempt;
    const incoming = await sendRequest({ method, url, headers, body, signal });
    return new Answer(incoming, url, patience, (reason) => attempt.abort(reason));
  } catch (error) {
    if (attempt.signal.aborted) throw attempt.signal.reason;
    throw failureOf(error, method, shownUrl(url));
  } finally {
    clearTimeout(timer);
  }
}

/**
 * The error for a missing answer. Errors of bad arguments, such as a header with a line end, stay
 * as they are.
 */
function failureOf(error: unknown, method: string, url: string): unknown {
  const { code, message } = error as { code?: unknown; message?: unknown };
  // Not the error itself, because that of `fetch` has the address with its query.
  const cause = new Error(String(message));
  if (error instanceof ProtocolError)
    return new RemoteError(`${method} failed: ${message}`, { failure: "malformed", url, cause });
  if (error instanceof TypeError && code === undefined) return error;
  const what =
    error instanceof ConnectionLostError
      ? "the connection was closed"
      : typeof code === "string"
        ? code
        : "no connection";
  return new RemoteError(`${method} failed: ${what}`, { failure: "unreachable", url, cause });
}
