/**
 * A caching HTTP proxy whose cache survives restarts: `bun examples/http-cache/main.ts --origin
 * http://localhost:8080 --dir ./cache [--port 3000] [--max-mib 64] [--ttl-ms 60000]`.
 *
 * Responses are in a map outside the JavaScript heap, bounded in bytes: the least used go first,
 * and each expires. After a restart the cache answers while it is still being loaded. A request
 * whose entry is not there yet waits only for that entry's pages.
 */
import { parseArgs } from "node:util";
import { Store } from "pgalloc/data";

const { values } = parseArgs({
  options: {
    origin: { type: "string" },
    dir: { type: "string", default: "./cache" },
    port: { type: "string", default: "3000" },
    "max-mib": { type: "string", default: "64" },
    "ttl-ms": { type: "string", default: "60000" },
  },
});
if (values.origin === undefined) throw new Error("Pass --origin URL");
const origin = values.origin;
const ttlMs = Number(values["ttl-ms"]);

const store = await Store.open(values.dir, { create: true, checkpointEveryMs: 5000 });
const maxBytes = Number(values["max-mib"]) * 2 ** 20;
const responses = await store.whenLoaded(() => store.map("responses", { maxBytes }));

/** An entry: the length of the header as 4 bytes, the header as JSON, the body. */
function encode(response: Response, body: Uint8Array): Uint8Array {
  const type = response.headers.get("content-type") ?? "application/octet-stream";
  const header = new TextEncoder().encode(JSON.stringify({ status: response.status, type }));
  const entry = new Uint8Array(4 + header.length + body.length);
  new DataView(entry.buffer).setUint32(0, header.length);
  entry.set(header, 4);
  entry.set(body, 4 + header.length);
  return entry;
}

function decode(entry: Uint8Array<ArrayBuffer>, cache: string): Response {
  const length = new DataView(entry.buffer, entry.byteOffset).getUint32(0);
  const { status, type } = JSON.parse(new TextDecoder().decode(entry.subarray(4, 4 + length)));
  const headers = { "content-type": type, "x-cache": cache };
  return new Response(entry.subarray(4 + length), { status, headers });
}

/** Concurrent requests for one path make one request to the origin. */
const underWay = new Map<string, Promise<Uint8Array<ArrayBuffer>>>();

async function fetchEntry(path: string): Promise<Uint8Array<ArrayBuffer>> {
  const response = await fetch(new URL(path, origin));
  const entry = encode(response, await response.bytes()) as Uint8Array<ArrayBuffer>;
  if (response.ok && entry.length < maxBytes)
    await store.whenLoaded(() => responses.set(path, entry, { ttlMs }));
  return entry;
}

async function answer(request: Request): Promise<Response> {
  const { pathname, search } = new URL(request.url);
  const path = pathname + search;
  if (request.method !== "GET") return new Response("only GET\n", { status: 405 });
  const cached = await store.whenLoaded(() => responses.get(path));
  if (cached !== undefined) return decode(cached, "hit");
  const pending = underWay.get(path) ?? fetchEntry(path).finally(() => underWay.delete(path));
  underWay.set(path, pending);
  return decode(await pending, "miss");
}

const server = Bun.serve({ port: Number(values.port), fetch: answer });
console.log(`listening on port ${server.port}, ${responses.size} entries`);

async function stop(): Promise<void> {
  await server.stop();
  // Writes a last checkpoint.
  await store.close();
  process.exit(0);
}
process.on("SIGTERM", () => void stop());
process.on("SIGINT", () => void stop());
