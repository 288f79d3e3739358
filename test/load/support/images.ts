/** An image of five units, in frames of any codec, behind a module source that can misbehave. */
import { addressOf } from "../../../ffi/index.ts";
import type { CodecId } from "../../../src/codec/codec.ts";
import { openCodec } from "../../../src/codec/open-codec.ts";
import { BLOCK_PAGES, type ColumnPlace, type PageMap } from "../../../src/checkpoint/page-map.ts";
import { USED } from "../../../src/allocator/states.ts";
import { fileOver } from "../../../src/file/memory-file.ts";
import { HUGE_PAGE_SIZE, type MemoryFile, PAGE_SIZE } from "../../../src/index.ts";
import { restoreFiles } from "../../../src/restore/restore.ts";
import type { ModuleSource } from "../../../src/source/index.ts";
import type { MemorySourceOptions } from "./memory-source.ts";

export const MODULE = new URL("./memory-source.ts", import.meta.url).href;
export const PAGES_PER_UNIT = HUGE_PAGE_SIZE / PAGE_SIZE;
export const UNITS = 5;
export const PAGES = UNITS * PAGES_PER_UNIT;

/** Page `page` of the image: compressible, and different from every other. */
export function pageBytes(page: number): Uint8Array {
  return new Uint8Array(new Uint32Array(1024).fill(page * 7 + 1).buffer);
}

export interface Image {
  readonly map: PageMap;
  readonly manifest: Uint8Array;
  readonly checksums: ColumnPlace;
  readonly contents: Uint8Array;
}

export interface FramePages {
  readonly start: number;
  readonly pages: number;
  /** Pages of the frame that are live, as [first, count]. */
  readonly live: readonly (readonly [number, number])[];
}

/** Encodes frames one after the other, at multiples of the page size. */
export function makeImage(frames: readonly FramePages[], codec: CodecId): Image {
  const extents: [number, number, number, number][] = [];
  const rows: { offset: number; stored: number; pages: number }[] = [];
  const chunks: Uint8Array[] = [];
  let offset = 0;
  for (const [row, { start, pages, live }] of frames.entries()) {
    const source = new Uint8Array(new SharedArrayBuffer(pages * PAGE_SIZE));
    for (let i = 0; i < pages; i++) source.set(pageBytes(start + i), i * PAGE_SIZE);
    const stored = new Uint8Array(new SharedArrayBuffer(2 * source.byteLength));
    const bytes = openCodec(codec).encode({
      source: addressOf(source),
      lengthBytes: source.byteLength,
      destination: addressOf(stored),
      capacityBytes: stored.byteLength,
    });
    const padded = Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;
    chunks.push(new Uint8Array(stored.subarray(0, padded)));
    rows.push({ offset, stored: bytes, pages });
    offset += padded;
    for (const [first, count] of live) extents.push([start + first, count, row, first]);
  }
  extents.sort(([a], [b]) => a - b);
  const crcs = extents.flatMap(([start, count]) =>
    Array.from({ length: count }, (_, i) => Bun.hash.crc32(pageBytes(start + i))),
  );
  const column = new Uint8Array(Uint32Array.from(crcs).buffer);
  const blocks = Math.ceil(crcs.length / BLOCK_PAGES);
  const manifest = new Uint8Array(100 + column.byteLength);
  manifest.set(column, 100);
  return {
    map: {
      extents: {
        start: Uint32Array.from(extents, (row) => row[0]),
        length: Uint32Array.from(extents, (row) => row[1]),
        frame: Uint32Array.from(extents, (row) => row[2]),
        framePage: Uint32Array.from(extents, (row) => row[3]),
      },
      frames: {
        content: new Uint32Array(rows.length).fill(1),
        codec: new Uint32Array(rows.length).fill(codec),
        offset: Float64Array.from(rows, (row) => row.offset),
        storedBytes: Float64Array.from(rows, (row) => row.stored),
        pages: Uint32Array.from(rows, (row) => row.pages),
      },
    },
    manifest,
    checksums: {
      offset: 100,
      count: crcs.length,
      widthBytes: 4,
      blockCrcs: Uint32Array.from({ length: blocks }, (_, block) =>
        Bun.hash.crc32(column.subarray(block * 4 * BLOCK_PAGES, (block + 1) * 4 * BLOCK_PAGES)),
      ),
    },
    contents: Buffer.concat(chunks),
  };
}

export function dense(codec: CodecId): Image {
  return makeImage(
    Array.from({ length: UNITS }, (_, unit) => ({
      start: unit * PAGES_PER_UNIT,
      pages: PAGES_PER_UNIT,
      live: [[0, PAGES_PER_UNIT]] as const,
    })),
    codec,
  );
}

export function sourceOf(image: Image, options: Partial<MemorySourceOptions> = {}): ModuleSource {
  const share = (bytes: Uint8Array) => {
    const shared = new Uint8Array(new SharedArrayBuffer(bytes.byteLength));
    shared.set(bytes);
    return shared;
  };
  const contents = [share(image.manifest), share(image.contents)];
  return { kind: "module", module: MODULE, options: { contents, ...options }, names: ["m", "p"] };
}

export function load(image: Image, source: ModuleSource): MemoryFile {
  const { cores } = restoreFiles(
    source,
    [
      {
        image: {
          chunkHuge: Uint8Array.of(0),
          runs: {
            start: Uint32Array.of(0),
            length: Uint32Array.of(PAGES),
            state: Uint32Array.of(USED),
            refs: Uint32Array.of(1),
            kind: Uint32Array.of(0),
            group: Uint32Array.of(0),
          },
        },
        map: image.map,
        checksums: image.checksums,
        options: {},
      },
    ],
    { background: true },
  );
  return fileOver(cores[0]!, null);
}

export const all = { start: 0, end: PAGES * PAGE_SIZE };
export const pages = (first: number, count = 1) => ({
  start: first * PAGE_SIZE,
  end: (first + count) * PAGE_SIZE,
});

/** Pages with contents that differ from the image's. */
export function wrongPages(file: MemoryFile, { map }: Image): number[] {
  const wrong: number[] = [];
  const { start, length } = map.extents;
  const bytes = file.view(all);
  for (let extent = 0; extent < start.length; extent++)
    for (let page = start[extent]!; page < start[extent]! + length[extent]!; page++) {
      const got = bytes.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
      if (Buffer.compare(got, pageBytes(page)) !== 0) wrong.push(page);
    }
  return wrong;
}
