/**
 * A program's start: from the creation of the process until it has the first page of its image,
 * page cache hot. pgalloc's program is an executable with bytecode (docs/deploying.md); "from
 * sources" is the same program run by `bun`. The hash is that of the page's first word.
 */
import { join } from "node:path";
import {
  type Bench,
  buildOnce,
  main,
  number,
  OURS,
  type Params,
  type Run,
  type Sample,
} from "./support/bench.ts";
import { formatHash, pageFileIn } from "./support/image.ts";
import { prepareCache } from "./support/page-cache.ts";
import { ourImage } from "./save.bench.ts";

export const bench: Bench = {
  subject: "start",
  title: "process start to first page",
  cases: ({ bytes }) => ["dense", "fragmented"].map((pattern) => ({ pattern, bytes })),
  rivals: () => ["from sources"],
  measure: sample,
};

const PROGRAM = join(import.meta.dir, "support/start-program.ts");

async function sample(params: Params, run: Run): Promise<Sample> {
  const image = ourImage(run.directory, params);
  for (const path of [join(image, "meta"), pageFileIn(image)]) prepareCache(path, "hot");
  const executable = join(run.directory, "start-program");
  if (run.by === OURS) buildOnce(PROGRAM, executable);
  const program = run.by === OURS ? [executable] : [process.execPath, PROGRAM];
  const beganMs = performance.now();
  const child = Bun.spawn([...program, image], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  const decoder = new TextDecoder();
  let line = "";
  let startToFirstPageSeconds = 0;
  for await (const chunk of child.stdout) {
    if (startToFirstPageSeconds === 0)
      startToFirstPageSeconds = (performance.now() - beganMs) / 1000;
    line += decoder.decode(chunk, { stream: true });
  }
  if ((await child.exited) !== 0) throw new Error(`The program ended with ${child.exitCode}`);
  const { firstWord, ...figures } = JSON.parse(line) as { firstWord: number } & Record<
    string,
    number
  >;
  return {
    figures: { startToFirstPageSeconds, ...figures },
    hash: formatHash(firstWord, number(params, "bytes")),
  };
}

if (import.meta.main) await main(bench);
