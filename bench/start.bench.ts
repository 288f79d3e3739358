/**
 * A program's start: from the making of the process until it has the first page of its image in hand, the page cache hot.
 * Ours is an executable with bytecode (docs/deploying.md); "from sources" is the same program run by `bun`.
 */
import { MemoryFile, PAGE_SIZE } from "../src/index.ts";
import { type Bench, main, number, type Params, type Run, type Sample } from "./support/bench.ts";
import { formatHash } from "./support/image.ts";
import { prepareCache } from "./support/page-cache.ts";
import { checkStamp } from "./support/trace.ts";
import { ourImage } from "./save.bench.ts";

export const bench: Bench = {
  subject: "start",
  title: "process start to first page",
  cases: ({ bytes }) => ["dense", "fragmented"].map((pattern) => ({ pattern, bytes })),
  isBuilt: true,
  rivals: () => ["from sources"],
  measure: sample,
};

const PROGRAM_FLAG = "--program";
/** Every fourth page of a fragmented image is empty, this one is not. */
const FIRST_PAGE = 1024;

/** The program: restores an image, awaits a page of it, and says what took how long. */
async function program(directory: string): Promise<void> {
  const startedMs = performance.now();
  const file = await MemoryFile.loadFrom(directory, { background: true });
  const returnedMs = performance.now();
  const page = { start: FIRST_PAGE * PAGE_SIZE, end: (FIRST_PAGE + 1) * PAGE_SIZE };
  await file.awaitLoad(page);
  checkStamp(file.view(page), FIRST_PAGE);
  const firstMs = performance.now();
  const loadFromReturnsSeconds = (returnedMs - startedMs) / 1000;
  process.stdout.write(`${JSON.stringify({ loadFromReturnsSeconds, firstPageSeconds: (firstMs - startedMs) / 1000 })}\n`);
  await file.awaitLoad();
  file.destroy();
}

async function sample(params: Params, run: Run): Promise<Sample> {
  const directory = ourImage(run.directory, params);
  for (const name of ["meta", "pages"]) prepareCache(`${directory}/${name}`, "hot");
  // In an executable that is the program itself.
  const self = import.meta.path.startsWith("/$bunfs") ? [process.execPath] : [process.execPath, import.meta.path];
  const beganMs = performance.now();
  const child = Bun.spawn([...self, PROGRAM_FLAG, directory], { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
  const decoder = new TextDecoder();
  let line = "";
  let startToFirstPageSeconds = 0;
  for await (const chunk of child.stdout) {
    if (startToFirstPageSeconds === 0) startToFirstPageSeconds = (performance.now() - beganMs) / 1000;
    line += decoder.decode(chunk, { stream: true });
  }
  if ((await child.exited) !== 0) throw new Error(`The program ended with ${child.exitCode}`);
  const figures = { startToFirstPageSeconds, ...(JSON.parse(line) as Record<string, number>) };
  // What was loaded is checked by its stamp, and by `load` as a whole.
  return { figures, hash: formatHash(FIRST_PAGE, number(params, "bytes")) };
}

if (import.meta.main) {
  const [flag, directory] = process.argv.slice(2);
  if (flag === PROGRAM_FLAG && directory !== undefined) await program(directory);
  else await main(bench);
}
