/** Runs examples/shared-index like a user: builds an index in S3, and serves it. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { KEYS } from "../http/support/clients.ts";
import { S3Server } from "../http/support/s3-server.ts";

const main = join(import.meta.dir, "../../examples/shared-index/main.ts");
afterAll(() => terminateIdleThreads());

test("shared-index serves the index of one process from others, and from a cache", async () => {
  const server = await S3Server.start();
  const root = mkdtempSync(join(tmpdir(), "pgalloc-shared-index-"));
  const start = (...args: string[]) =>
    Bun.spawn([process.execPath, main, ...args], {
      stdout: "pipe",
      stderr: "inherit",
      env: {
        ...process.env,
        AWS_ENDPOINT_URL_S3: server.endpoint,
        AWS_ACCESS_KEY_ID: KEYS.accessKeyId,
        AWS_SECRET_ACCESS_KEY: KEYS.secretAccessKey,
      },
    });
  try {
    const builder = start("build", "s3://bucket/index", "--rows", "5000");
    expect(await new Response(builder.stdout).text()).toStartWith("published 5000 rows");
    const answers: unknown[] = [];
    for (let i = 0; i < 2; i++) {
      server.seen.length = 0;
      const service = start(
        "serve",
        "s3://bucket/index",
        "--cache",
        join(root, "cache"),
        "--port",
        "0",
      );
      const reader = service.stdout.getReader();
      let output = "";
      while (!output.includes("all rows are loaded"))
        output += new TextDecoder().decode((await reader.read()).value);
      const url = /http:\S+/.exec(output)![0];
      answers.push(await (await fetch(`${url}nearest?row=7`)).json());
      expect((await fetch(`${url}nearest?row=5000`)).status).toBe(404);
      if (i > 0) expect(server.seen.length).toBe(1);
      service.kill("SIGTERM");
      expect(await service.exited).toBe(0);
    }
    expect(answers[0]).toMatchObject({ row: 7 });
    expect(answers[1]).toEqual(answers[0]);
  } finally {
    await server[Symbol.asyncDispose]();
    rmSync(root, { recursive: true });
  }
}, 60_000);
