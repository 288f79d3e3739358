/**
 * The programs that bench/restart.bench.ts starts: each restores its image, answers one question
 * and says when. As most programs, it knows the next page when the one before is there.
 */
import { WordIndex } from "../../examples/word-search/index-file.ts";
import { Store } from "../../src/data/index.ts";
import { type LoadStats, MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import type { LoadOptions } from "../../src/core/options.ts";
import { Random } from "./trace.ts";

/** The questions that a program is asked: the one that was recorded, or another one. */
export type Question = "same" | "other";

export interface Request {
  readonly program: string;
  readonly where: string;
  readonly question: Question;
  /** Words, documents or pages of the image. */
  readonly count: number;
  readonly options: Pick<LoadOptions, "s3" | "workingSet">;
}

export interface Reply {
  /** Milliseconds since 1970. */
  readonly answeredAt: number;
  readonly loadToAnswerMs: number;
  readonly loadFromMs: number;
  readonly answer: string;
  readonly stats: LoadStats;
}

/** Documents of a result page, and steps of a walk. */
const DOCUMENTS = 20;
const STEPS = 200;

interface Opened {
  readonly file: MemoryFile;
  answer(): Promise<string>;
}

/** The order of the questions' words, documents or pages. */
function pick(question: Question, count: number, some: number): number[] {
  const random = new Random(question === "same" ? 1 : 2);
  return Array.from({ length: some }, () => random.below(count));
}

const load = ({ where, options }: Request) =>
  MemoryFile.loadFrom(where, { ...options, background: true });

/** examples/word-search: the nearest words to one. */
async function openWordSearch(request: Request) {
  const file = await load(request);
  const index = new WordIndex(file, file.userData!);
  const [word] = pick(request.question, request.count, 1);
  const answer = async () => {
    const found = await index.nearest(`word-${word}`, 8);
    return found.map((neighbour) => neighbour.word).join();
  };
  return { file, answer };
}

/** The service of examples/documents: a page of results. */
async function openDocuments(request: Request) {
  const { where, options, count, question } = request;
  const store = await Store.open(where, { ...options, readOnly: true });
  const answer = async () => {
    const texts: string[] = [];
    for (const document of pick(question, count, DOCUMENTS)) {
      const text = await store.whenLoaded(() => {
        const row = store.map("ids").get(`document-${document}`)!;
        const at = new DataView(row.buffer, row.byteOffset).getUint32(0, true);
        return store.table("documents").get(at)["text"] as Uint8Array;
      });
      texts.push(new TextDecoder().decode(text));
    }
    return texts.join();
  };
  return { file: store.memory, answer };
}

/** A walk of dependent steps, as through an index larger than any cache. */
async function openWalk(request: Request) {
  const file = await load(request);
  const answer = async () => {
    let sum = 0;
    for (const page of pick(request.question, request.count, STEPS)) {
      const range = { start: page * PAGE_SIZE, end: (page + 1) * PAGE_SIZE };
      await file.awaitLoad(range);
      sum += file.view(range, Uint32Array)[0]!;
    }
    return String(sum);
  };
  return { file, answer };
}

const PROGRAMS: Readonly<Record<string, (request: Request) => Promise<Opened>>> = {
  "word search": openWordSearch,
  documents: openDocuments,
  walk: openWalk,
};

async function run(request: Request): Promise<Reply> {
  const beganMs = performance.now();
  const { file, answer } = await PROGRAMS[request.program]!(request);
  const openedMs = performance.now();
  const text = await answer();
  const answeredMs = performance.now();
  file.markReady();
  return {
    answeredAt: performance.timeOrigin + answeredMs,
    loadToAnswerMs: answeredMs - beganMs,
    loadFromMs: openedMs - beganMs,
    answer: Bun.hash(text).toString(16),
    stats: file.loadStats(),
  };
}

if (import.meta.main) {
  console.log(JSON.stringify(await run(JSON.parse(process.argv[2]!) as Request)));
  process.exit(0);
}
