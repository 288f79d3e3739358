/**
 * One machine writes an index, many serve it: a vector index that is published in S3.
 *
 *   bun main.ts build s3://bucket/index [--rows 20000]
 *   bun main.ts serve s3://bucket/index [--cache DIR] [--port 8080]
 *
 * `build` makes an index and publishes it; running it again publishes a newer one. `serve` answers
 * GET /nearest?row=N while the index still loads: rows that a request needs come first. The AWS_*
 * variables have the address and the credentials of S3.
 */
import { parseArgs } from "node:util";
import { MemoryFile } from "pgalloc";

const DIMENSIONS = 64;
const ROW_BYTES = DIMENSIONS * 4;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rows: { type: "string", default: "20000" },
    cache: { type: "string" },
    port: { type: "string", default: "8080" },
  },
});
const [command, where] = positionals;
if (where === undefined || (command !== "build" && command !== "serve")) {
  console.error("usage: bun main.ts build|serve s3://bucket/index");
  process.exit(2);
}

async function build(place: string, rows: number): Promise<void> {
  using file = MemoryFile.create({ name: "index" });
  const range = file.allocate(Math.ceil((rows * ROW_BYTES) / 4096) * 4096);
  const vectors = file.view(range, Float32Array);
  for (let i = 0; i < rows * DIMENSIONS; i++) vectors[i] = Math.fround(Math.random() - 0.5);
  const report = await file.saveTo(place, {
    userData: new TextEncoder().encode(JSON.stringify({ rows, built: new Date() })),
  });
  console.log(`published ${rows} rows, ${report.writtenBytes} bytes, checkpoint ${report.id}`);
}

/** The row nearest to `row` among `candidates` rows behind it, by inner product. */
async function nearest(file: MemoryFile, row: number, rows: number): Promise<number> {
  const start = Math.floor((row * ROW_BYTES) / 4096) * 4096;
  const candidates = Math.min(1000, rows - row);
  const end = Math.ceil(((row + candidates) * ROW_BYTES) / 4096) * 4096;
  const range = { start, end };
  await file.awaitLoad(range);
  const words = file.view(range, Float32Array);
  const first = (row * ROW_BYTES - start) / 4;
  let best = row;
  let bestScore = Number.NEGATIVE_INFINITY;
  for (let i = 1; i < candidates; i++) {
    let score = 0;
    for (let d = 0; d < DIMENSIONS; d++)
      score += words[first + d]! * words[first + i * DIMENSIONS + d]!;
    if (score <= bestScore) continue;
    best = row + i;
    bestScore = score;
  }
  return best;
}

async function serve(place: string): Promise<void> {
  const file = await MemoryFile.loadFrom(place, { background: true, cache: values.cache });
  const { rows } = JSON.parse(new TextDecoder().decode(file.userData!)) as { rows: number };
  const server = Bun.serve({
    port: Number(values.port),
    async fetch(request) {
      const row = Number(new URL(request.url).searchParams.get("row") ?? Number.NaN);
      if (!Number.isInteger(row) || row < 0 || row >= rows)
        return new Response("no such row\n", { status: 404 });
      return Response.json({ row, nearest: await nearest(file, row, rows) });
    },
  });
  console.log(`serving ${rows} rows on ${server.url}`);
  await file.awaitLoad();
  console.log("all rows are loaded");
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, async () => {
      await server.stop();
      file.destroy();
    });
  }
}

if (command === "build") await build(where, Number(values.rows));
else await serve(where);
