/** The images of the programs that bench/restart.bench.ts starts. */
import { buildIndex, type Embeddings } from "../../examples/word-search/index-file.ts";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { openDocuments } from "../peers/documents.ts";
import { Random, stampPages } from "./trace.ts";

const DIMENSIONS = 100;
const TOPICS = 200;
const TEXT_LENGTH = 600;
const VECTOR_LENGTH = 128;
const BATCH = 1000;

/** Words around topics, as many as the example's data has; their similarity is made up. */
function inventWords(count: number): Embeddings {
  const random = new Random(7);
  const component = () => random.below(2001) / 1000 - 1;
  const vectorOf = (length: number) => Array.from({ length }, component);
  const topics = Array.from({ length: TOPICS }, () => vectorOf(DIMENSIONS));
  const words = Array.from({ length: count }, (_, i) => `word-${i}`);
  const vectors = Object.fromEntries(
    words.map((word) => {
      const topic = topics[random.below(TOPICS)]!;
      return [word, topic.map((x) => x + component() / 2)] as const;
    }),
  );
  return { dimensions: DIMENSIONS, words, vectors };
}

async function makeWords(directory: string, count: number): Promise<void> {
  const { file, userData } = buildIndex(inventWords(count));
  await file.saveTo(directory, { userData });
  file.destroy();
}

async function makeDocuments(directory: string, count: number): Promise<void> {
  const service = await openDocuments("pgalloc", directory);
  for (let first = 0; first < count; first += BATCH) {
    const length = Math.min(BATCH, count - first);
    service.upsertAll(
      Array.from({ length }, (_, i) => {
        const vector = new Float32Array(VECTOR_LENGTH).map((_, at) => ((first + i + at) % 97) / 97);
        const text = `${first + i} `.padEnd(TEXT_LENGTH, "lorem ipsum ");
        return [`document-${first + i}`, { vector, text }] as const;
      }),
    );
  }
  await service.close();
}

async function makePages(directory: string, count: number): Promise<void> {
  using file = MemoryFile.create({ name: "walk" });
  const bytes = 2 ** 26;
  const range = file.allocate(count * PAGE_SIZE);
  for (let start = 0; start < range.end; start += bytes) {
    const piece = { start, end: Math.min(range.end, start + bytes) };
    stampPages(file.view(piece, Uint32Array), start / PAGE_SIZE, "dense");
  }
  await file.saveTo(directory);
}

/** By program: makes an image of so many words, documents or pages in a directory. */
export const IMAGES: Readonly<Record<string, (directory: string, count: number) => Promise<void>>> =
  { "word search": makeWords, documents: makeDocuments, walk: makePages };
