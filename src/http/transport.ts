/**
 * The way of a request to its server. Reads go over connections of this thread (connections.ts).
 * `fetch` sends requests with a body, and all requests if the environment names a proxy.
 */
import { sendOverConnection } from "./connections.ts";
import type { Incoming, Outgoing } from "./incoming.ts";

const PROXY_VARIABLES = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"];

/**
 * @throws the transport's error, with a `code` if there is no connection
 * @throws the signal's reason
 */
export function sendRequest(request: Outgoing): Promise<Incoming> {
  const isRead = request.method === "GET" || request.method === "HEAD";
  const hasProxy = PROXY_VARIABLES.some((name) => (process.env[name] ?? "") !== "");
  return isRead && !hasProxy ? sendOverConnection(request) : sendByFetch(request);
}

async function sendByFetch({ method, url, headers, body, signal }: Outgoing): Promise<Incoming> {
  const response = await fetch(url, {
    method,
    headers,
    redirect: "manual",
    decompress: false,
    signal,
    ...(body === undefined ? {} : { body: body as Uint8Array<ArrayBuffer> }),
  });
  const { status } = response;
  // An answer to HEAD announces a length, too.
  const hasBody = method !== "HEAD" && response.body !== null;
  const read = async (take: (piece: Uint8Array) => void): Promise<void> => {
    if (response.body === null) return;
    for await (const piece of response.body) take(piece);
  };
  return { status, headers: response.headers, hasBody, read };
}
