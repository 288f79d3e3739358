/** Commands for remote places, as a user runs them. The server is in this process. */
import { afterAll, afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { KEYS } from "../http/support/clients.ts";
import { S3Server } from "../http/support/s3-server.ts";
import { filledFile, namesIn, PLACE, s3Of } from "../remote/support/store.ts";

const program = join(import.meta.dir, "../..", packageJson.bin.pgalloc);
let server: S3Server;
let root: string;

beforeEach(async () => {
  server = await S3Server.start();
  root = mkdtempSync(join(tmpdir(), "pgalloc-cli-remote-"));
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(root, { recursive: true });
});
afterAll(() => terminateIdleThreads());

/** Runs the tool with the server as endpoint and the keys in the environment. */
async function run(...args: string[]) {
  const child = Bun.spawn([process.execPath, program, ...args], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    env: {
      ...process.env,
      AWS_ENDPOINT_URL_S3: server.endpoint,
      AWS_ACCESS_KEY_ID: KEYS.accessKeyId,
      AWS_SECRET_ACCESS_KEY: KEYS.secretAccessKey,
    },
  });
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { stdout, stderr, exitCode };
}

async function save(times = 1): Promise<string> {
  using file = filledFile(100);
  let id = "";
  for (let i = 0; i < times; i++)
    ({ id } = await file.saveTo(PLACE, {
      s3: s3Of(server),
      compression: "none",
      incremental: false,
    }));
  return id;
}

test("list shows the checkpoints of a place, the newest first", async () => {
  const id = await save(2);
  const { stdout, exitCode } = await run("list", PLACE, "--json");
  expect(exitCode).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject([
    { sequence: 2, id, pageFiles: 1, storedBytes: 409_600 },
    { sequence: 1 },
  ]);
  const text = await run("list", PLACE);
  expect(text.stdout.split("\n")[0]).toMatch(
    new RegExp(`^ {7}2 {2}${id} {2}\\d{4}-\\S+ {2}400 KiB in 1 page file$`),
  );
});

test("copy brings a checkpoint to a directory and back", async () => {
  const id = await save();
  const directory = join(root, "copy");
  const there = await run("copy", PLACE, directory, "--json");
  expect(there.exitCode).toBe(0);
  expect(JSON.parse(there.stdout)).toMatchObject({ id, pageFiles: 1 });
  expect(readdirSync(directory).length).toBe(2);
  const back = await run("copy", directory, "s3://bucket/other");
  expect(back).toMatchObject({ exitCode: 0, stdout: `Copied checkpoint ${id}: 404 KiB\n` });
  expect(namesIn(server, "other/").length).toBe(2);
});

test("prune removes old checkpoints, and with --dry-run only lists them", async () => {
  server.clockMs = -48 * 3_600_000;
  await save(3);
  const dry = await run("prune", PLACE, "--keep", "1", "--dry-run");
  expect(dry.stdout).toContain("Would remove 2 checkpoints, 2 page files");
  expect(namesIn(server).length).toBe(6);
  const report = JSON.parse((await run("prune", PLACE, "--keep", "1", "--json")).stdout);
  expect(report).toMatchObject({ kept: [3], removedCheckpoints: [2, 1], removedPageFiles: 2 });
  expect(namesIn(server).length).toBe(2);
});

test("inspect and verify accept URLs", async () => {
  const id = await save();
  const seen = await run("inspect", PLACE, "--json");
  expect(JSON.parse(seen.stdout)).toMatchObject({
    directory: PLACE,
    contentBytes: 409_600,
    format: "native",
  });
  expect(await run("verify", PLACE)).toMatchObject({
    exitCode: 0,
    stdout: expect.stringContaining(`${PLACE} (native)`),
  });
  const [key, { bytes }] = [...server.objects].find(([key]) => key.includes("pages-"))!;
  const damaged = Buffer.from(bytes);
  damaged[5000]! ^= 1;
  server.put(key, damaged);
  const verdict = await run("verify", PLACE, "--json");
  expect(verdict.exitCode).toBe(1);
  expect(JSON.parse(verdict.stdout)).toMatchObject({ ok: false, badPages: 1 });
  expect(id).toMatch(/^[0-9a-f]{16}$/);
});

test("commands name the problem, and exit with 1 or 2", async () => {
  expect((await run("prune", PLACE)).stderr).toContain("Expected --keep N");
  expect(await run("prune", PLACE, "--keep", "1", "--min-age", "1")).toMatchObject({ exitCode: 2 });
  const none = await run("copy", PLACE, join(root, "copy"));
  expect(none).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("no checkpoint") });
  server.misbehave({ fault: { status: 403, s3Code: "AccessDenied" } });
  const refused = await run("list", PLACE);
  expect(refused.exitCode).toBe(1);
  expect(refused.stderr).toContain("403 AccessDenied");
  expect(refused.stderr).not.toContain(KEYS.secretAccessKey);
  expect(await run("list", root)).toMatchObject({ exitCode: 2 });
});
