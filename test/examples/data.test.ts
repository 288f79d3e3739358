/** Runs examples/http-cache and examples/documents like a user, over restarts and kill -9. */
import { afterAll, expect, test } from "bun:test";
import { join } from "node:path";
import { temporaryDirectory } from "../store/support/support.ts";

const examples = join(import.meta.dir, "../../examples");
const directory = temporaryDirectory();
afterAll(directory.remove);

interface Service {
  readonly url: string;
  readonly greeting: string;
  end(signal: "SIGTERM" | "SIGKILL"): Promise<void>;
}

/** Starts an example, and waits for it to listen. */
async function start(name: string, ...options: string[]): Promise<Service> {
  const program = Bun.spawn(
    [process.execPath, join(examples, name, "main.ts"), "--port", "0", ...options],
    { stdout: "pipe", stderr: "inherit" },
  );
  let greeting = "";
  for await (const chunk of program.stdout) {
    greeting += new TextDecoder().decode(chunk);
    if (greeting.includes("\n")) break;
  }
  const port = /port (\d+)/.exec(greeting)?.[1];
  if (port === undefined) throw new Error(`${name} did not start: ${greeting}`);
  return {
    url: `http://localhost:${port}`,
    greeting,
    async end(signal) {
      program.kill(signal);
      await program.exited;
    },
  };
}

test("http-cache answers from its cache, also after a restart, within its limit", async () => {
  let requests = 0;
  await using origin = Bun.serve({
    port: 0,
    fetch(request) {
      requests++;
      return new Response(`${new URL(request.url).pathname} ${"x".repeat(20_000)}`);
    },
  });
  const options = ["--origin", `http://localhost:${origin.port}`, "--max-mib", "1"];
  const dir = ["--dir", join(directory.path, "cache")];
  let cache = await start("http-cache", ...options, ...dir);
  const get = async (path: string) => {
    const response = await fetch(cache.url + path);
    expect((await response.text()).startsWith(`${path} `)).toBe(true);
    return response.headers.get("x-cache");
  };
  expect(await get("/a")).toBe("miss");
  expect(await get("/a")).toBe("hit");
  await cache.end("SIGTERM");
  cache = await start("http-cache", ...options, ...dir);
  expect(await get("/a")).toBe("hit");
  expect(requests).toBe(1);
  for (let i = 0; i < 200; i++) await get(`/page-${i}`);
  await cache.end("SIGTERM");
  cache = await start("http-cache", ...options, ...dir, "--ttl-ms", "50");
  expect(Number(/(\d+) entries/.exec(cache.greeting)![1])).toBeLessThanOrEqual(52);
  expect(await get("/short")).toBe("miss");
  await Bun.sleep(80);
  expect(await get("/short")).toBe("miss");
  await cache.end("SIGTERM");
}, 60_000);

test("documents finds the stored documents, also after kill -9", async () => {
  const dir = ["--dir", join(directory.path, "documents")];
  let service = await start("documents", ...dir);
  const vector = (i: number) =>
    Array.from({ length: 64 }, (_, k) => (k === i % 64 ? 1 + i / 1000 : 0));
  const put = (i: number, text = `text ${i}`) =>
    fetch(`${service.url}/documents/doc-${i}`, {
      method: "PUT",
      body: JSON.stringify({ vector: vector(i), text }),
    });
  const search = async (i: number, count = 3) => {
    const body = JSON.stringify({ vector: vector(i), count });
    const response = await fetch(`${service.url}/search`, { method: "POST", body });
    return (await response.json()) as { id: string; text: string; score: number }[];
  };
  for (let i = 0; i < 300; i++) expect((await put(i)).status).toBe(204);
  expect((await search(5)).map(({ id }) => id)).toEqual(["doc-261", "doc-197", "doc-133"]);
  for (const gone of [261, 5, 299])
    expect((await fetch(`${service.url}/documents/doc-${gone}`, { method: "DELETE" })).status).toBe(
      204,
    );
  await put(197, "changed");
  const before = await search(5, 10);
  expect(before[0]).toMatchObject({ id: "doc-197", text: "changed" });
  // After two more checkpoints, all of that is saved.
  await Bun.sleep(2500);
  await put(1000);
  await service.end("SIGKILL");
  service = await start("documents", ...dir);
  expect(await search(5, 10)).toEqual(before);
  for (let i = 300; i < 320; i++) await put(i);
  const status = (await (await fetch(`${service.url}/status`)).json()) as { documents: number };
  expect(status.documents - 317).toBeOneOf([0, 1]);
  await service.end("SIGTERM");
  service = await start("documents", ...dir);
  expect(service.greeting).toContain(`${status.documents} documents`);
  await service.end("SIGKILL");
}, 60_000);
