/** An attacker's changes of a checkpoint: damage that checksums show, and lies that they do not. */
import fc from "fast-check";
import { CHUNK_SIZE, PAGE_SIZE } from "../../../src/index.ts";
import { composeMeta, parseMeta, type RawMeta, type RawSection } from "./raw-meta.ts";

export interface Hostile {
  readonly meta: Uint8Array;
  /** Size of the pages file, whose contents are kept as far as they reach; null: it is missing. */
  readonly pagesBytes: number | null;
}

const PAGES_PER_CHUNK = CHUNK_SIZE / PAGE_SIZE;

/**
 * Numbers at the limits of 32-bit, 53-bit and 64-bit arithmetic, and numbers that occur in
 * checkpoints.
 */
const word = fc.oneof(
  fc.constantFrom(
    0,
    1,
    2,
    3,
    4,
    511,
    512,
    513,
    PAGES_PER_CHUNK - 1,
    PAGES_PER_CHUNK,
    PAGES_PER_CHUNK + 1,
  ),
  fc.constantFrom(
    2 ** 16,
    2 ** 28,
    2 ** 30,
    2 ** 31 - 1,
    2 ** 31,
    2 ** 31 + 1,
    2 ** 32 - 512,
    2 ** 32 - 2,
    2 ** 32 - 1,
  ),
  fc.nat({ max: 4096 }),
  fc.nat({ max: 2 ** 32 - 1 }),
);
const float = fc.oneof(
  fc.constantFrom(
    0,
    -0,
    -1,
    0.5,
    1,
    63,
    64,
    4095,
    4096,
    2 ** 31,
    2 ** 32,
    2 ** 53 - 1,
    2 ** 53,
    2 ** 60,
    2 ** 63,
    2 ** 64,
  ),
  fc.constantFrom(
    Number.NaN,
    Number.POSITIVE_INFINITY,
    Number.NEGATIVE_INFINITY,
    Number.MAX_VALUE,
    Number.MIN_VALUE,
  ),
  fc.nat({ max: 2 ** 20 }).map((page) => page * PAGE_SIZE),
  fc.double(),
);

type Edit = (raw: RawMeta) => RawMeta;

/** Applies `change` to one section of the file. */
function onSection(index: number, change: (section: RawSection) => readonly RawSection[]): Edit {
  return (raw) => {
    if (raw.sections.length === 0) return raw;
    const at = index % raw.sections.length;
    return {
      ...raw,
      sections: raw.sections.flatMap((section, i) => (i === at ? change(section) : [section])),
    };
  };
}

function withWord(bytes: Uint8Array, index: number, change: (old: number) => number): Uint8Array {
  if (bytes.byteLength < 4) return bytes;
  const copy = bytes.slice();
  const view = new DataView(copy.buffer);
  const at = 4 * (index % Math.floor(bytes.byteLength / 4));
  view.setUint32(at, change(view.getUint32(at, true)) >>> 0, true);
  return copy;
}

function resized(bytes: Uint8Array, lengthBytes: number): Uint8Array {
  const copy = new Uint8Array(lengthBytes);
  copy.set(bytes.subarray(0, lengthBytes));
  return copy;
}

const STEPS = [-1, 1, -512, 512, -PAGES_PER_CHUNK, PAGES_PER_CHUNK];

const edit: fc.Arbitrary<Edit> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc
      .tuple(fc.nat(), fc.nat(), word)
      .map(([s, w, value]) => setWord(s, w, () => value)),
  },
  {
    weight: 6,
    arbitrary: fc
      .tuple(fc.nat(), fc.nat(), fc.constantFrom(...STEPS))
      .map(([s, w, step]) => setWord(s, w, (old) => old + step)),
  },
  // One number copied over another of the same section: extents that overlap, runs that are out of
  // order.
  {
    weight: 4,
    arbitrary: fc.tuple(fc.nat(), fc.nat(), fc.nat()).map(([s, from, to]) => copyWord(s, from, to)),
  },
  { weight: 1, arbitrary: fc.nat().map((s) => onSection(s, () => [])) },
  { weight: 1, arbitrary: fc.nat().map((s) => onSection(s, (section) => [section, section])) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.nat(), word)
      .map(([s, id]) => onSection(s, (section) => [{ ...section, id }])),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(fc.nat(), fc.nat({ max: 300 }))
      .map(([s, length]) => resize(s, () => length)),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(fc.nat(), fc.integer({ min: -48, max: 48 }))
      .map(([s, by]) => resize(s, (old) => old + by)),
  },
  // A huge number of something, for example chunks: each byte of that section is 1 GiB.
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.nat(), fc.constantFrom(1000, 2 ** 16, 2 ** 20))
      .map(([s, length]) => resize(s, () => length)),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(fc.nat(), float)
      .map(([s, offset]) => onSection(s, (section) => [{ ...section, offset }])),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(fc.nat(), float)
      .map(([s, lengthBytes]) => onSection(s, (section) => [{ ...section, lengthBytes }])),
  },
  { weight: 1, arbitrary: word.map((version) => (raw: RawMeta) => withHeader(raw, { version })) },
  { weight: 1, arbitrary: word.map((pageSize) => (raw: RawMeta) => withHeader(raw, { pageSize })) },
  {
    weight: 1,
    arbitrary: word.map((pageFileCount) => (raw: RawMeta) => withHeader(raw, { pageFileCount })),
  },
  {
    weight: 1,
    arbitrary: float.map((eagerBytes) => (raw: RawMeta) => withHeader(raw, { eagerBytes })),
  },
  // A lie in a column of f64: the offset or the length of a frame, the size of a page file.
  {
    weight: 4,
    arbitrary: fc.tuple(fc.nat(), fc.nat(), float).map(([s, i, value]) => setFloat(s, i, value)),
  },
  {
    weight: 1,
    arbitrary: float.map((manifestBytes) => (raw: RawMeta) => withHeader(raw, { manifestBytes })),
  },
  {
    weight: 1,
    arbitrary: word.map((fileCount) => (raw: RawMeta) => withHeader(raw, { fileCount })),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.nat(), word)
      .map(([s, owner]) => onSection(s, (section) => [{ ...section, owner }])),
  },
  // A section of one file for another file as well.
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.nat(), word)
      .map(([s, owner]) => onSection(s, (section) => [section, { ...section, owner }])),
  },
  {
    weight: 1,
    arbitrary: word.map((sectionCount) => (raw: RawMeta) => withHeader(raw, { sectionCount })),
  },
);

function withHeader(raw: RawMeta, header: Partial<RawMeta["header"]>): RawMeta {
  return { ...raw, header: { ...raw.header, ...header } };
}

function setWord(section: number, index: number, change: (old: number) => number): Edit {
  return onSection(section, (old) => [{ ...old, bytes: withWord(old.bytes, index, change) }]);
}

function setFloat(section: number, index: number, value: number): Edit {
  return onSection(section, (old) => {
    if (old.bytes.byteLength < 8) return [old];
    const bytes = old.bytes.slice();
    new DataView(bytes.buffer).setFloat64(8 * (index % Math.floor(bytes.length / 8)), value, true);
    return [{ ...old, bytes }];
  });
}

function copyWord(section: number, from: number, to: number): Edit {
  return onSection(section, (old) => {
    let value = 0;
    withWord(old.bytes, from, (found) => {
      value = found;
      return found;
    });
    return [{ ...old, bytes: withWord(old.bytes, to, () => value) }];
  });
}

function resize(section: number, change: (old: number) => number): Edit {
  return onSection(section, (old) => [
    { ...old, bytes: resized(old.bytes, Math.max(0, change(old.bytes.byteLength))) },
  ]);
}

/** Bytes changed, cut off, inserted: damage by disks and networks. */
const damage: fc.Arbitrary<(meta: Uint8Array) => Uint8Array> = fc.oneof(
  fc
    .array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1, maxLength: 4 })
    .map((changes) => (meta: Uint8Array) => {
      const copy = meta.slice();
      for (const [at, to] of changes) copy[at % copy.length] = to;
      return copy;
    }),
  fc.nat().map((end) => (meta: Uint8Array) => meta.slice(0, end % (meta.length + 1))),
  fc
    .tuple(fc.nat(), fc.nat({ max: 64 }), fc.uint8Array({ maxLength: 64 }))
    .map(([at, dropped, added]) => (meta: Uint8Array) => {
      const from = at % meta.length;
      return new Uint8Array(
        Buffer.concat([meta.subarray(0, from), added, meta.subarray(from + dropped)]),
      );
    }),
);

const pagesSize = fc.oneof(
  { weight: 12, arbitrary: fc.constant((bytes: number): number | null => bytes) },
  {
    weight: 1,
    arbitrary: fc
      .constantFrom(-PAGE_SIZE, PAGE_SIZE, -1, 1)
      .map((by) => (bytes: number) => Math.max(0, bytes + by)),
  },
  { weight: 1, arbitrary: fc.constantFrom(0, null).map((size) => () => size) },
);

/**
 * One hostile version of a good checkpoint. Sometimes a lie about the size of the pages file is
 * made true.
 */
export function hostile(meta: Uint8Array, pagesBytes: number): fc.Arbitrary<Hostile> {
  const lie = fc
    .tuple(fc.array(edit, { minLength: 1, maxLength: 3 }), pagesSize)
    .map(([edits, size]) => {
      const raw = edits.reduce((edited, apply) => apply(edited), parseMeta(meta));
      return { meta: composeMeta(raw, meta), pagesBytes: size(pagesBytes) };
    });
  const broken = fc
    .tuple(damage, pagesSize)
    .map(([apply, size]) => ({ meta: apply(meta), pagesBytes: size(pagesBytes) }));
  return fc.oneof({ weight: 3, arbitrary: lie }, { weight: 1, arbitrary: broken });
}
