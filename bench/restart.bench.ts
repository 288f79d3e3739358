/**
 * The start of a program that was started before: from the creation of its process until it has
 * answered a question, the image cold on the disk or in S3 with 30 ms of latency. The program is an
 * executable with bytecode (docs/deploying.md).
 *
 * - Programs: the word search of examples/word-search; a page of results of a service for documents
 *   (examples/documents); a walk of 200 random pages, each known when the one before is there.
 * - "pgalloc" has recorded its working set in five starts. "recorded once" and "no working set" are
 *   as they say; "stored first" has recorded it, and then saved all contents. "page cache hot" has
 *   no working set, and nothing to read from the disk: no start can be much faster.
 * - Questions: the "same" that was recorded, or an "other" one, whose pages are not in the set.
 *
 * "wastedFraction" is the part of the working set that the start did not use. Each answer is
 * compared with that of a start without a working set.
 */
import { copyFileSync, cpSync, existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { MemoryFile } from "../src/index.ts";
import {
  type Bench,
  buildOnce,
  main,
  number,
  OURS,
  type Params,
  type Run,
  type Sample,
  text,
} from "./support/bench.ts";
import { prepareCache } from "./support/page-cache.ts";
import { IMAGES } from "./support/restart-images.ts";
import type { Question, Reply, Request } from "./support/restart-program.ts";
import { KEYS, serveRanges } from "./support/s3-servers.ts";

const LATENCY_MS = 30;
const NO_SET = "no working set";
const ONCE = "recorded once";
const FIRST = "stored first";
const HOT = "page cache hot";
const STARTS: Readonly<Record<string, number>> = {
  [NO_SET]: 0,
  [ONCE]: 1,
  [OURS]: 5,
  [FIRST]: 5,
  [HOT]: 0,
};
const PROGRAM = join(import.meta.dir, "support/restart-program.ts");
/** Words, documents and pages of the images; and the fewest. */
const COUNTS: Readonly<Record<string, readonly [full: number, smoke: number]>> = {
  "word search": [350_000, 500],
  documents: [100_000, 300],
  walk: [2 ** 19, 2 ** 11],
};

export const bench: Bench = {
  subject: "restart",
  title: "restart to first answer",
  cases: ({ isSmoke }) =>
    Object.entries(COUNTS).flatMap(([program, [full, smoke]]) =>
      isSmoke
        ? [{ program, place: program === "walk" ? "s3" : "disk", question: "same", count: smoke }]
        : ["disk", "s3"].flatMap((place) =>
            ["same", "other"].map((question) => ({ program, place, question, count: full })),
          ),
    ),
  rivals: ({ question, place }) => {
    if (question === "other") return [NO_SET];
    return [ONCE, FIRST, NO_SET, ...(place === "disk" ? [HOT] : [])];
  },
  measure: sample,
};

async function sample(params: Params, run: Run): Promise<Sample> {
  const program = text(params, "program");
  const count = number(params, "count");
  const directory = join(run.directory, `restart-${program}-${count}`);
  const image = join(directory, "image");
  if (!existsSync(image)) {
    mkdirSync(directory, { recursive: true });
    await IMAGES[program]!(image, count);
  }
  const starter = new Starter(params, run, directory);
  const recorded = await starter.prepare(image);
  const reply = await starter.startOn(recorded, text(params, "question") as Question);
  const { workingSetBytes, wastedBytes, loadedBytes, readCalls } = reply.stats;
  return {
    figures: {
      startToAnswerSeconds: reply.startToAnswerMs / 1000,
      loadToAnswerSeconds: reply.loadToAnswerMs / 1000,
      loadFromReturnsSeconds: reply.loadFromMs / 1000,
      workingSetBytes,
      wastedFraction: workingSetBytes === 0 ? 0 : wastedBytes / workingSetBytes,
      loadedBytes,
      readCalls,
    },
    hash: reply.answer,
  };
}

/** An image and what was recorded of its starts; null: nothing. */
interface Recorded {
  readonly image: string;
  readonly workingSet: string | null;
}

/** Starts one program in one way. */
class Starter {
  private readonly params: Params;
  private readonly run: Run;
  private readonly directory: string;

  constructor(params: Params, run: Run, directory: string) {
    this.params = params;
    this.run = run;
    this.directory = directory;
  }

  /** Records the starts of this contender, unless that was done in an earlier round. */
  async prepare(image: string): Promise<Recorded> {
    const { by } = this.run;
    const starts = STARTS[by]!;
    if (starts === 0) return { image, workingSet: null };
    const place = text(this.params, "place");
    const workingSet = join(this.directory, `set-${place}-${starts}`);
    if (!existsSync(workingSet))
      for (let i = 0; i < (this.run.isSmoke ? 1 : starts); i++)
        await this.start({ image, workingSet }, "same");
    return by === FIRST
      ? await this.storeFirst({ image, workingSet }, place)
      : { image, workingSet };
  }

  /** Saves all contents of a copy of the image, whose working set is known. */
  private async storeFirst(recorded: Recorded, place: string): Promise<Recorded> {
    const image = join(this.directory, `first-${place}`);
    const workingSet = `${image}-set`;
    if (existsSync(workingSet)) return { image, workingSet };
    cpSync(recorded.image, image, { recursive: true });
    copyFileSync(recorded.workingSet!, workingSet);
    using file = await MemoryFile.loadFrom(image, { background: true, workingSet });
    file.markReady();
    await file.compact(image, file.userData === null ? {} : { userData: file.userData });
    return { image, workingSet };
  }

  /** Starts the program on a copy of what was recorded: each round finds the same. */
  async startOn({ image, workingSet }: Recorded, question: Question) {
    if (workingSet === null) return await this.start({ image, workingSet }, question);
    const copy = `${workingSet}-copy`;
    copyFileSync(workingSet, copy);
    return await this.start({ image, workingSet: copy }, question);
  }

  private async start(recorded: Recorded, question: Question) {
    if (text(this.params, "place") === "disk")
      return this.spawn(recorded, recorded.image, question);
    const server = await serveRanges(recorded.image, LATENCY_MS);
    try {
      const s3 = { endpoint: server.endpoint, ...KEYS };
      return this.spawn(recorded, "s3://bucket/image", question, s3);
    } finally {
      await server.stop();
    }
  }

  private spawn(
    { image, workingSet }: Recorded,
    where: string,
    question: Question,
    s3?: Request["options"]["s3"],
  ): Reply & { readonly startToAnswerMs: number } {
    const isCold = s3 === undefined && this.run.by !== HOT;
    for (const name of readdirSync(image))
      if (name === "meta" || name.startsWith("pages-"))
        prepareCache(join(image, name), isCold ? "cold" : "hot");
    const request: Request = {
      ...{ program: text(this.params, "program"), where, question },
      count: number(this.params, "count"),
      options: { s3, workingSet: workingSet ?? false },
    };
    const executable = join(this.run.directory, "restart-program");
    if (!this.run.isSmoke) buildOnce(PROGRAM, executable);
    const command = this.run.isSmoke ? [process.execPath, PROGRAM] : [executable];
    const began = performance.timeOrigin + performance.now();
    const child = Bun.spawnSync([...command, JSON.stringify(request)]);
    if (!child.success) throw new Error(`The program ended with ${child.stderr}`);
    const reply = JSON.parse(child.stdout.toString()) as Reply;
    return { ...reply, startToAnswerMs: reply.answeredAt - began };
  }
}

if (import.meta.main) await main(bench);
