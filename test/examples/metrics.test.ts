/** Runs examples/metrics like a user: a service that answers while it loads, and its figures. */
import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const main = join(import.meta.dir, "../../examples/metrics/main.ts");
const checkpoint = mkdtempSync(join(tmpdir(), "pgalloc-metrics-"));
afterAll(() => rmSync(checkpoint, { recursive: true }));

test("examples/metrics answers from its checkpoint, and serves its figures", async () => {
  const options = ["--port", "0", "--mib", "64", "--checkpoint", checkpoint];
  const service = Bun.spawn([process.execPath, main, ...options], {
    stdout: "pipe",
    stderr: "inherit",
  });
  try {
    const { value } = await service.stdout.getReader().read();
    const url = /http:\S+/.exec(new TextDecoder().decode(value))![0];
    expect(await (await fetch(`${url}page/16383`)).text()).toBe("16383\n");
    expect((await fetch(`${url}page/16384`)).status).toBe(404);
    const response = await fetch(`${url}metrics`);
    expect(response.headers.get("content-type")).toContain("version=0.0.4");
    const text = await response.text();
    // Page 0 is zero, so it is not stored.
    expect(text).toContain(`pgalloc_load_size_bytes{file="numbers"} ${64 * 2 ** 20 - 4096}`);
    expect(text).toMatch(/pgalloc_await_seconds_count\{file="numbers",cause="range"\} [01]/);
  } finally {
    service.kill("SIGTERM");
  }
  expect(await service.exited).toBe(0);
}, 60_000);

test("examples/metrics removes the checkpoint that it made in a temporary directory", async () => {
  const temporary = join(checkpoint, "temporary");
  mkdirSync(temporary);
  const made = () => readdirSync(temporary).filter((name) => name.startsWith("pgalloc-"));
  const service = Bun.spawn([process.execPath, main, "--port", "0", "--mib", "1"], {
    stdout: "pipe",
    stderr: "inherit",
    env: { ...process.env, TMPDIR: temporary },
  });
  await service.stdout.getReader().read();
  expect(made()).toHaveLength(1);
  service.kill("SIGTERM");
  expect(await service.exited).toBe(0);
  expect(made()).toEqual([]);
}, 60_000);
