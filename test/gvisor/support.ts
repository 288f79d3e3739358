/**
 * Shared by the tests of gVisor's formats: the fixtures, a second implementation of the message,
 * random images.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import protobuf from "protobufjs";
import {
  CHUNK_PAGES,
  HUGE_PAGES,
  type MemoryFileImage,
  PAGE_BYTES,
  RunState,
} from "../../src/gvisor/image.ts";
import { decodeMetadata, type GvisorMetadata } from "../../src/gvisor/metadata.ts";
import { RunBuilder } from "../../src/gvisor/run-builder.ts";
import {
  streamHeader,
  locateInPagesFile,
  memorySource,
  readMetadataMessage,
} from "../../src/gvisor/stream.ts";
import { validateMetadata } from "../../src/gvisor/validate.ts";
import { U64_MAX } from "../../src/gvisor/wire.ts";

const fixtureDirectory = join(import.meta.dir, "../data/gvisor");

export interface Expected {
  filled: { offset: number; index: number }[];
  live: { start: number; end: number; refs: number; kind: number; group: number; huge: boolean }[];
  totalSize: number;
}

export interface Fixture {
  name: string;
  metadata: Uint8Array;
  /** null if the contents are in the same stream. */
  pages: Uint8Array | null;
  expected: Expected;
}

export const fixtures: Fixture[] = ["small", "huge", "inline"].map((name) => ({
  name,
  metadata: new Uint8Array(readFileSync(join(fixtureDirectory, name, "pages_meta.img"))),
  pages:
    name === "inline"
      ? null
      : new Uint8Array(readFileSync(join(fixtureDirectory, name, "pages.img"))),
  expected: JSON.parse(
    readFileSync(join(fixtureDirectory, name, "expected.json"), "utf8"),
  ) as Expected,
}));

/** The message of a fixture, without its length. */
export function messageOf(fixture: Fixture): Uint8Array {
  const length = Number(
    new DataView(fixture.metadata.buffer, fixture.metadata.byteOffset).getBigUint64(0, true),
  );
  return fixture.metadata.subarray(8, 8 + length);
}

// The map in its wire form: entries that always have both fields. `later*` are fields of a version
// that does not exist.
const schema = protobuf.parse(`
  syntax = "proto3";
  message Range { uint64 start = 1; uint64 end = 2; string later = 9; }
  message Unfree { uint64 start = 1; uint64 end = 2; uint64 refs = 3; fixed32 later = 100; }
  message MemAcct {
    uint64 start = 1; uint64 end = 2; uint32 kind = 3; uint32 mem_cg_id = 4;
    bool known_committed = 5; uint64 later = 6;
  }
  message Chunk { bool huge = 1; bytes later = 2; }
  message Entry { optional uint64 key = 1; optional uint64 value = 2; }
  message Metadata {
    uint64 version = 1;
    repeated Chunk chunks = 2;
    repeated MemAcct mem_acct = 3;
    repeated Unfree unfree_small = 4;
    repeated Unfree unfree_huge = 5;
    repeated Range unwaste_small = 6;
    repeated Range unwaste_huge = 7;
    repeated Entry subreleased = 8;
    repeated uint32 later_packed = 9;
    double later_double = 10;
    Range later_message = 536870911;
  }`);
export const Oracle = schema.root.lookupType("Metadata");

/** Fields with their default omitted, as Go does; 64-bit values as decimal strings. */
export type Message = Record<string, string | number | boolean>;

function compact(message: Message): Message {
  return Object.fromEntries(
    Object.entries(message).filter(([, value]) => value !== 0 && value !== "0" && value !== false),
  );
}

const u64 = (value: number): string => (value === U64_MAX ? "18446744073709551615" : `${value}`);

/** Metadata in protobufjs's form. */
export function toOracle(metadata: GvisorMetadata): Record<string, unknown> {
  const { memAcct, unfreeSmall, unfreeHuge, unwasteSmall, unwasteHuge, subreleased } = metadata;
  const rows = <T>(columns: { start: Float64Array }, row: (i: number) => T): T[] =>
    Array.from({ length: columns.start.length }, (_, i) => row(i));
  const range = (columns: { start: Float64Array; end: Float64Array }, i: number) => ({
    start: u64(columns.start[i]!),
    end: u64(columns.end[i]!),
  });
  const unfree = (columns: GvisorMetadata["unfreeSmall"]) =>
    rows(columns, (i) => compact({ ...range(columns, i), refs: u64(columns.refs[i]!) }));
  return {
    version: "1",
    chunks: [...metadata.chunks.huge].map((huge) => compact({ huge: huge === 1 })),
    memAcct: rows(memAcct, (i) =>
      compact({
        ...range(memAcct, i),
        kind: memAcct.kind[i]!,
        memCgId: memAcct.group[i]!,
        knownCommitted: memAcct.knownCommitted[i] === 1,
      }),
    ),
    unfreeSmall: unfree(unfreeSmall),
    unfreeHuge: unfree(unfreeHuge),
    unwasteSmall: rows(unwasteSmall, (i) => compact(range(unwasteSmall, i))),
    unwasteHuge: rows(unwasteHuge, (i) => compact(range(unwasteHuge, i))),
    subreleased: [...subreleased.hugeStart].map((key, i) => ({
      key: u64(key),
      value: u64(subreleased.count[i]!),
    })),
  };
}

export function oracleEncode(message: Record<string, unknown>): Uint8Array {
  return new Uint8Array(Oracle.encode(Oracle.fromObject(message)).finish());
}

/** The result of protobufjs, in the shape of `toOracle`. */
export function oracleDecode(bytes: Uint8Array): Record<string, unknown> {
  const object = Oracle.toObject(Oracle.decode(bytes), {
    longs: String,
    defaults: false,
    arrays: true,
  });
  const known = ["chunks", "memAcct", "unfreeSmall", "unfreeHuge", "unwasteSmall", "unwasteHuge"];
  const strip = ({ later: _, ...rest }: Message): Message => compact(rest);
  return {
    version: object["version"],
    ...Object.fromEntries(known.map((field) => [field, (object[field] as Message[]).map(strip)])),
    subreleased: (object["subreleased"] as Message[]).map(({ key = "0", value = "0" }) => ({
      key,
      value,
    })),
  };
}

interface Step {
  /** Pages left free before the run. */
  gap: number;
  length: number;
  state: number;
  refs: number;
  kind: number;
  group: number;
  committed: boolean;
}

const step: fc.Arbitrary<Step> = fc.record({
  gap: fc.oneof({ weight: 2, arbitrary: fc.constant(0) }, fc.integer({ min: 0, max: 2000 })),
  length: fc.oneof(
    fc.integer({ min: 1, max: 20 }),
    fc.integer({ min: 1, max: 3000 }),
    fc.integer({ min: 1, max: CHUNK_PAGES }),
  ),
  state: fc.constantFrom(RunState.used, RunState.used, RunState.waste, RunState.subReleased),
  refs: fc.oneof(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 2 ** 31 - 1 })),
  kind: fc.integer({ min: 0, max: 5 }),
  group: fc.oneof(fc.integer({ min: 0, max: 2 }), fc.integer({ min: 0, max: 2 ** 32 - 1 })),
  committed: fc.boolean(),
});

/**
 * Valid images: used runs of huge chunks are whole huge pages, contents are in used pages and
 * waste.
 */
export const imageArbitrary: fc.Arbitrary<MemoryFileImage> = fc
  .tuple(fc.array(fc.constantFrom(0, 1), { maxLength: 4 }), fc.array(step, { maxLength: 40 }))
  .map(([chunks, steps]) => buildImage(new Uint8Array(chunks), steps));

function buildImage(chunkHuge: Uint8Array, steps: Step[]): MemoryFileImage {
  const runs = new RunBuilder(() => undefined);
  const extentStart: number[] = [];
  const extentLength: number[] = [];
  const place = (
    at: number,
    end: number,
    huge: boolean,
    { state, refs, kind, group, committed }: Step,
  ): void => {
    const actual = state === RunState.subReleased && !huge ? RunState.used : state;
    const used = actual === RunState.used;
    runs.push(
      at,
      end,
      actual,
      used ? refs : 0,
      used ? kind : 0,
      actual === RunState.subReleased ? 0 : group,
    );
    if (!committed || actual === RunState.subReleased) return;
    extentStart.push(at);
    extentLength.push(end - at);
  };
  let at = 0;
  let huge = false;
  for (const next of steps) {
    const sizePages = chunkHuge.length * CHUNK_PAGES;
    // In huge chunks, free space begins and ends at huge pages: fill up to the border before a gap.
    if (huge && next.gap > 0 && at % HUGE_PAGES !== 0) {
      const border = Math.ceil(at / HUGE_PAGES) * HUGE_PAGES;
      place(at, border, true, { ...next, state: RunState.used });
      at = border;
    }
    at += huge ? Math.floor(next.gap / HUGE_PAGES) * HUGE_PAGES : next.gap;
    if (at >= sizePages) break;
    const chunk = Math.floor(at / CHUNK_PAGES);
    const intoHuge = chunkHuge[chunk] === 1;
    if (intoHuge !== huge) runs.startGroup();
    // A gap from small chunks into a huge one.
    if (intoHuge && !huge)
      at = Math.max(chunk * CHUNK_PAGES, Math.floor(at / HUGE_PAGES) * HUGE_PAGES);
    huge = intoHuge;
    const end = Math.min(at + next.length, (chunk + 1) * CHUNK_PAGES);
    place(at, end, huge, next);
    at = end;
  }
  if (huge && at % HUGE_PAGES !== 0) {
    const border = Math.ceil(at / HUGE_PAGES) * HUGE_PAGES;
    place(at, border, true, {
      gap: 0,
      length: 0,
      state: RunState.used,
      refs: 1,
      kind: 0,
      group: 0,
      committed: false,
    });
  }
  const { extents } = locateInPagesFile(
    { start: new Uint32Array(extentStart), length: new Uint32Array(extentLength) },
    { sizeBytes: chunkHuge.length * CHUNK_PAGES * PAGE_BYTES },
  );
  return { chunkHuge, runs: runs.finish(), extents };
}

/**
 * Writes the checkpoint of two files in `from` to `to` in the form without a pages file, as
 * gVisor's SaveTo does.
 */
export function writeInlineForm(from: string, to: string): void {
  const metadata = readFileSync(join(from, "pages_meta.img"));
  const pages = readFileSync(join(from, "pages.img"));
  const { committed } = validateMetadata(
    decodeMetadata(readMetadataMessage(memorySource(metadata)).bytes),
  );
  const parts: Uint8Array[] = [metadata];
  let offset = 0;
  for (const length of committed.length) {
    const lengthBytes = length * PAGE_BYTES;
    parts.push(streamHeader(lengthBytes), pages.subarray(offset, offset + lengthBytes));
    offset += lengthBytes;
  }
  mkdirSync(to);
  writeFileSync(join(to, "pages_meta.img"), Buffer.concat(parts));
}
