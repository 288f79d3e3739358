/**
 * Calls what imports a module on first use, with so many descriptors left. Prints the code of each
 * call's error, or "done", and the same once there are descriptors again.
 */
import { closeSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryFile, serveMap } from "../../../src/index.ts";

const directory = mkdtempSync(join(tmpdir(), "pgalloc-scarce-"));
const file = MemoryFile.create();
file.view(file.allocate(4096))[0] = 1;
await file.saveTo(directory);
const reader = await MemoryFile.loadFrom(directory);
await file.saveTo(directory);
const refusing = Bun.serve({ port: 0, fetch: () => new Response("no", { status: 403 }) });
const s3 = { endpoint: refusing.url.href, accessKeyId: "a", secretAccessKey: "b" };

const calls: Record<string, () => unknown> = {
  refresh: () => reader.refresh(),
  serveMap: async () => await (await serveMap(file)).stop(),
  s3: () => file.saveTo("s3://bucket/prefix", { s3 }),
};

async function callAll(): Promise<string[]> {
  const answers: string[] = [];
  for (const [name, call] of Object.entries(calls)) {
    try {
      await call();
      answers.push(`${name} done`);
    } catch (error) {
      answers.push(`${name} ${(error as { code?: string }).code ?? String(error)}`);
    }
  }
  return answers;
}

const taken: number[] = [];
try {
  for (;;) taken.push(openSync("/dev/null", "r"));
} catch {
  for (const fd of taken.splice(0, Number(process.argv[2]))) closeSync(fd);
}
const without = await callAll();
for (const fd of taken) closeSync(fd);
console.log(JSON.stringify([without, await callAll()]));
rmSync(directory, { recursive: true });
process.exit(0);
