/**
 * A server with latency, as a process: answers S3's GETs and listings of one checkpoint from a
 * checkpoint's directory, each after `latencyMs`. Nothing is signed or checked: it measures the
 * client. `bun late-server-program.ts DIRECTORY LATENCY_MS` prints its port.
 */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";

const [directory, latency] = process.argv.slice(2) as [string, string];
const latencyMs = Number(latency);

/** Keys as in a save to S3. */
const paths = new Map(
  readdirSync(directory).map((name) => [
    name === "meta" ? "manifest/999999999999998" : name,
    join(directory, name),
  ]),
);

function list(prefix: string): Response {
  const entries = [...paths]
    .map(([key, path]) => [`image/${key}`, statSync(path).size] as const)
    .filter(([key]) => key.startsWith(prefix))
    .map(
      ([key, size]) =>
        `<Contents><Key>${key}</Key><Size>${size}</Size>` +
        "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>",
    );
  return new Response(
    `<ListBucketResult><IsTruncated>false</IsTruncated>${entries.join("")}</ListBucketResult>`,
  );
}

function get(key: string, range: string | null): Response {
  const path = paths.get(key.replace(/^image\//, ""));
  if (path === undefined)
    return new Response("<Error><Code>NoSuchKey</Code></Error>", { status: 404 });
  const { size } = statSync(path);
  const headers = { etag: `"${size}"` };
  const match = /^bytes=(\d+)-(\d+)$/.exec(range ?? "");
  if (match === null) return new Response(Bun.file(path), { headers });
  const start = Number(match[1]);
  const end = Math.min(size, Number(match[2]) + 1);
  return new Response(Bun.file(path).slice(start, end), {
    status: 206,
    headers: { ...headers, "content-range": `bytes ${start}-${end - 1}/${size}` },
  });
}

const server = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  async fetch(request) {
    await Bun.sleep(latencyMs);
    const url = new URL(request.url);
    if (url.searchParams.has("list-type")) return list(url.searchParams.get("prefix") ?? "");
    const key = decodeURIComponent(url.pathname.replace(/^\/bucket\//, ""));
    return get(key, request.headers.get("range"));
  },
});
console.log(server.port);
