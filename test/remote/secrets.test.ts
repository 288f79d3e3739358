/** No error, and no text that the library makes, shows what may be secret in a URL or an option. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Store } from "../../src/data/index.ts";
import { shownPlace } from "../../src/http/shown-url.ts";
import { loadAll, MemoryFile, openSource, saveAll } from "../../src/index.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";

const SECRET = "sekret/+=";

let directory: string;
let server: Bun.Server<undefined>;
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "pgalloc-secrets-"));
  using one = MemoryFile.create();
  using other = MemoryFile.create();
  one.allocate(4096);
  await saveAll(join(directory, "several"), { one, other });
  server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: serveFile });
});
afterAll(async () => {
  await server.stop(true);
  rmSync(directory, { recursive: true });
  await terminateIdleThreads();
});

/** Answers ranges of the files in `directory`. */
function serveFile(request: Request): Response {
  const file = Bun.file(join(directory, new URL(request.url).pathname));
  const range = /bytes=(\d+)-(\d+)/.exec(request.headers.get("range") ?? "");
  if (file.size === 0 || range === null) return new Response("", { status: 404 });
  const start = Number(range[1]);
  const end = Math.min(file.size, Number(range[2]) + 1);
  const headers = { "content-range": `bytes ${start}-${end - 1}/${file.size}` };
  return new Response(file.slice(start, end), { status: 206, headers });
}

const at = (path: string) => `http://127.0.0.1:${server.port}/${path}`;
const s3 = () => ({ endpoint: at(""), accessKeyId: "key", secretAccessKey: SECRET });
const loadS3 = (options: object) => MemoryFile.loadFrom("s3://bucket/x", { s3: options as never });

const MISTAKES: Readonly<Record<string, () => unknown>> = {
  "a user in a URL": () => MemoryFile.loadFrom(`https://user:${SECRET}@host/x`),
  "a fragment behind a query": () => MemoryFile.loadFrom(at(`x?signature=${SECRET}#y`)),
  "a query, and no checkpoint": () => MemoryFile.loadFrom(at(`none?signature=${SECRET}`)),
  "a query, and several files": () => MemoryFile.loadFrom(at(`several?signature=${SECRET}`)),
  "a query of a store": () => Store.open(at(`several?signature=${SECRET}`)),
  "a query of all files": () => loadAll(at(`none?signature=${SECRET}`)),
  "a query of a source": () => openSource(at(`none?signature=${SECRET}`)),
  "a query of a save": () => MemoryFile.create().saveTo(at(`x?signature=${SECRET}`)),
  "a query of an offline cache": () =>
    MemoryFile.loadFrom(at(`x?signature=${SECRET}`), { cache: { directory, offline: true } }),
  "a scheme that is not known": () => MemoryFile.loadFrom(`ftp://user:${SECRET}@host/x`),
  "keys before a bucket": () => MemoryFile.loadFrom(`s3://key:${SECRET}@bucket/x`, { s3: s3() }),
  "a query of S3": () => MemoryFile.loadFrom(`s3://bucket/x?secret=${SECRET}`, { s3: s3() }),
  "a user in an endpoint": () => loadS3({ ...s3(), endpoint: `https://user:${SECRET}@host` }),
  "an endpoint without scheme": () => loadS3({ ...s3(), endpoint: `user:${SECRET}@host` }),
  "an endpoint with a query": () => loadS3({ ...s3(), endpoint: `https://host?x=${SECRET}` }),
  "an endpoint that is an object": () => loadS3({ ...s3(), endpoint: { secret: SECRET } }),
  "credentials that are an object": () =>
    loadS3({ endpoint: at(""), credentials: { accessKeyId: "key", secretAccessKey: SECRET } }),
  "a provider without keys": () =>
    loadS3({ endpoint: at(""), credentials: async () => ({ secretAccessKey: SECRET }) }),
  "a secret that is an object": () => loadS3({ ...s3(), secretAccessKey: { secret: SECRET } }),
  "a token that no header can have": () => loadS3({ ...s3(), sessionToken: `${SECRET}\n` }),
  "an unknown option": () => loadS3({ ...s3(), secret: SECRET }),
};

for (const [mistake, run] of Object.entries(MISTAKES)) {
  test(`the error for ${mistake} shows no secret`, async () => {
    const error = await Promise.resolve()
      .then(run)
      .then(
        () => undefined,
        (reason: unknown) => reason,
      );
    expect(error).toBeInstanceOf(Error);
    for (let cause = error; cause instanceof Error; cause = cause.cause) {
      const shown = [cause.message, cause.stack, JSON.stringify(cause), String(cause)].join();
      expect(shown).not.toContain("sekret");
    }
  });
}

test("console.log shows no secret of a store's place", async () => {
  await using store = await Store.open(at(`none?signature=${SECRET}`), { create: true });
  expect(Bun.inspect(store)).toContain("/none?…");
  store[Symbol.dispose]();
});

test("shownPlace hides users, queries and fragments, and nothing else", () => {
  const shown = (where: string) => shownPlace(where);
  expect(shown("https://host:8080/a@1/b")).toBe("https://host:8080/a@1/b");
  expect(shown("s3://bucket/a@b")).toBe("s3://bucket/a@b");
  expect(shown("https://user@host/a")).toBe("https://…@host/a");
  expect(shown("https://user:1@host/a")).toBe("https://…@host/a");
  expect(shown("s3://key:a/b+c@bucket/x")).toBe("s3://…@bucket/x");
  expect(shown("https://host/a?b@c#d")).toBe("https://host/a?…#…");
  expect(shown("/data/a?b#c@d")).toBe("/data/a?b#c@d");
});
