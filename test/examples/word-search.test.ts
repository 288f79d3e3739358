/** Runs examples/word-search like a user, on a small file of the same shape. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onlyPageFile } from "../checkpoint/support/page-files.ts";

/** `--web` answers as before, and serves the page map until it is ended. */
async function checkPageMap(command: string[]): Promise<void> {
  const program = Bun.spawn([process.execPath, ...command], { stdout: "pipe", stderr: "pipe" });
  const decoder = new TextDecoder();
  let output = "";
  for await (const bytes of program.stdout) {
    output += decoder.decode(bytes, { stream: true });
    if (output.includes("press Ctrl-C")) break;
  }
  expect(output).toContain('nearest to "ocean": sea ');
  const [, url] = /page map {2}\((http:\S+)\)/.exec(output) ?? [];
  const model = (await (await fetch(`${url}model`)).json()) as { title: string };
  expect(model.title).toBe("word search");
  program.kill();
  expect(await program.exited).toBe(0);
}

test("word-search answers the same from its checkpoint as before it", async () => {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-example-"));
  try {
    const words = Array.from({ length: 3000 }, (_, i) =>
      i === 0 ? "ocean" : i === 1 ? "sea" : `word${i}`,
    );
    // Random directions, but "sea" is close to "ocean".
    const noise = (i: number, k: number) =>
      Math.sin(12.9898 * (i + 1) + 78.233 * (k + 1)) * 43758.5453;
    const component = (i: number, k: number) => noise(i, k) - Math.floor(noise(i, k)) - 0.5;
    const vectors = Object.fromEntries(
      words.map((word, i) => [
        word,
        Array.from({ length: 102 }, (_, k) =>
          i === 1 ? component(0, k) + 0.1 * component(1, k) : component(i, k),
        ),
      ]),
    );
    const data = join(directory, "words.json");
    await Bun.write(data, JSON.stringify({ dimensions: 100, words, vectors }));
    const checkpoint = join(directory, "checkpoint");
    const main = join(import.meta.dir, "../../examples/word-search/main.ts");
    const run = Bun.spawnSync(
      [process.execPath, main, "--data", data, "--checkpoint", checkpoint],
      { stderr: "pipe" },
    );
    const output = run.stdout.toString();
    expect(`${run.stderr}${run.exitCode}`).toBe("0");
    for (const part of [
      "first start",
      "next start",
      "built with bytecode",
      "with JSON.parse",
      "all loaded",
      "same before and after",
    ]) {
      expect(output).toContain(part);
    }
    expect(output.match(/nearest to "ocean": sea /g)?.length).toBe(4);
    expect(statSync(onlyPageFile(checkpoint)).mode & 0o777).toBe(0o600);
    await checkPageMap([main, "--data", data, "--checkpoint", checkpoint, "--web"]);
  } finally {
    rmSync(directory, { recursive: true });
  }
}, 60_000);
