/**
 * Coalescing: pieces of 1 to 4 pages that follow one another in the file, every fourth also in
 * memory, become vector operations of at most 1 MiB. The rival does the same with an object for
 * each piece and each segment.
 */
import { do_not_optimize, measure } from "mitata";
import { coalesce, type Pieces } from "../src/aio/coalesce.ts";
import { PAGE_SIZE } from "../src/index.ts";
import {
  type Bench,
  budget,
  main,
  number,
  OURS,
  type Params,
  type Run,
  type Sample,
} from "./support/bench.ts";
import { Random, WordHash } from "./support/trace.ts";

const MAX_BYTES = 2 ** 20;
const MAX_IOVECS = 1024;

/** [offset, address, length] of every segment, in order. */
type Segments = (visit: (offset: number, address: number, lengthBytes: number) => void) => void;

export const bench: Bench = {
  subject: "coalesce",
  title: "coalescing pieces into vector operations",
  cases: ({ isSmoke }) => (isSmoke ? [1_000] : [1_000, 131_072]).map((pieces) => ({ pieces })),
  rivals: () => ["an object per piece"],
  measure: sample,
};

async function sample(params: Params, run: Run): Promise<Sample> {
  const pieces = makePieces(number(params, "pieces"));
  const work = run.by === OURS ? () => withArrays(pieces) : objectPasses(pieces);
  const { avg } = await measure(() => do_not_optimize(work()), budget(run));
  const hash = new WordHash();
  work()((offset, address, lengthBytes) => {
    hash.add(offset / PAGE_SIZE);
    hash.add(address / PAGE_SIZE);
    hash.add(lengthBytes);
  });
  return { figures: { nsPerPiece: avg / pieces.count }, hash: hash.toString() };
}

function makePieces(count: number): Pieces {
  const random = new Random(1);
  const pieces = {
    addresses: new Float64Array(count),
    offsets: new Float64Array(count),
    lengths: new Float64Array(count),
    count,
  };
  let address = PAGE_SIZE;
  let offset = 0;
  for (let i = 0; i < count; i++) {
    const lengthBytes = (1 + random.below(4)) * PAGE_SIZE;
    if (i % 4 !== 0) address += PAGE_SIZE;
    pieces.addresses[i] = address;
    pieces.offsets[i] = offset;
    pieces.lengths[i] = lengthBytes;
    address += lengthBytes;
    offset += lengthBytes;
  }
  return pieces;
}

function withArrays(pieces: Pieces): Segments {
  const { count, offsets, firstSegment, iovecs } = coalesce(pieces, { maxBytes: MAX_BYTES });
  return (visit) => {
    for (let op = 0; op < count; op++) {
      let at = offsets[op]!;
      for (let s = firstSegment[op]!; s < firstSegment[op + 1]!; s++) {
        visit(at, iovecs[2 * s]!, iovecs[2 * s + 1]!);
        at += iovecs[2 * s + 1]!;
      }
    }
  };
}

interface Segment {
  address: number;
  lengthBytes: number;
}

interface Operation {
  offset: number;
  lengthBytes: number;
  segments: Segment[];
}

function objectPasses(pieces: Pieces): () => Segments {
  const list = Array.from({ length: pieces.count }, (_, i) => ({
    address: pieces.addresses[i]!,
    offset: pieces.offsets[i]!,
    lengthBytes: pieces.lengths[i]!,
  }));
  return () => {
    const operations: Operation[] = [];
    for (const piece of list) addPiece(operations, piece);
    return (visit) => {
      for (const { offset, segments } of operations) {
        let at = offset;
        for (const { address, lengthBytes } of segments) {
          visit(at, address, lengthBytes);
          at += lengthBytes;
        }
      }
    };
  };
}

function addPiece(operations: Operation[], piece: Segment & { offset: number }): void {
  for (let done = 0; done < piece.lengthBytes; ) {
    const address = piece.address + done;
    const offset = piece.offset + done;
    let op = operations.at(-1);
    const segment = op?.segments.at(-1);
    const follows =
      op !== undefined && op.offset + op.lengthBytes === offset && op.lengthBytes < MAX_BYTES;
    const extendsSegment =
      follows && segment !== undefined && segment.address + segment.lengthBytes === address;
    if (op === undefined || !follows || (!extendsSegment && op.segments.length === MAX_IOVECS)) {
      op = { offset, lengthBytes: 0, segments: [] };
      operations.push(op);
    }
    const taken = Math.min(piece.lengthBytes - done, MAX_BYTES - op.lengthBytes);
    if (extendsSegment) segment.lengthBytes += taken;
    else op.segments.push({ address, lengthBytes: taken });
    op.lengthBytes += taken;
    done += taken;
  }
}

if (import.meta.main) await main(bench);
