/** Runs examples/parallel-search like a user, on a small file of the same shape. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

test("parallel-search finds the same with three Workers, and prints the speed-up", async () => {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-example-"));
  try {
    const words = Array.from({ length: 5000 }, (_, i) => `word${i}`);
    const noise = (i: number, k: number) =>
      Math.sin(12.9898 * (i + 1) + 78.233 * (k + 1)) * 43758.5453;
    const component = (i: number, k: number) => noise(i, k) - Math.floor(noise(i, k)) - 0.5;
    const vectors = Object.fromEntries(
      words.map((word, i) => [word, Array.from({ length: 40 }, (_, k) => component(i, k))]),
    );
    const data = join(directory, "words.json");
    await Bun.write(data, JSON.stringify({ dimensions: 40, words, vectors }));
    const main = join(import.meta.dir, "../../examples/parallel-search/main.ts");
    const options = [
      "--data",
      data,
      "--checkpoint",
      join(directory, "checkpoint"),
      "--workers",
      "3",
      "--queries",
      "16",
    ];
    const run = Bun.spawnSync([process.execPath, main, ...options], {
      stderr: "pipe",
      timeout: 50_000,
    });
    const output = run.stdout.toString();
    expect(`${run.stderr}${run.exitCode}`).toBe("0");
    expect(output).toMatch(/16 words against all others/);
    expect(output).toMatch(/3 Workers: +[\d.]+ ms/);
    expect(output).toMatch(/speed-up: +[\d.]+×, and the same answers/);
    expect(output.match(/nearest to "word\d+": (word\d+, ){4}word\d+/g)?.length).toBe(3);
  } finally {
    rmSync(directory, { recursive: true });
  }
}, 60_000);
