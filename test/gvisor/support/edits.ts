/**
 * Lies in gVisor's metadata: single numbers changed; ranges dropped, repeated, swapped, joined;
 * edges of 2^32, 2^53, 2^64.
 */
import fc from "fast-check";
import { PAGE_BYTES } from "../../../src/gvisor/image.ts";
import type { GvisorMetadata } from "../../../src/gvisor/metadata.ts";
import { U64_MAX } from "../../../src/gvisor/wire.ts";

const edge = fc.oneof(
  fc.constantFrom(
    0,
    1,
    511,
    512,
    4095,
    4096,
    2 ** 21,
    2 ** 30,
    2 ** 31,
    2 ** 32,
    2 ** 43,
    2 ** 44,
    2 ** 52,
    2 ** 53 - 1,
    U64_MAX,
  ),
  fc.nat({ max: 2 ** 20 }).map((page) => page * PAGE_BYTES),
  fc.maxSafeNat(),
);

export type Columns = Record<string, Float64Array | Uint32Array | Uint8Array>;
export const SECTIONS = [
  "chunks",
  "memAcct",
  "unfreeSmall",
  "unfreeHuge",
  "unwasteSmall",
  "unwasteHuge",
  "subreleased",
] as const;

/** Reorders the rows of a section, drops some, repeats some. */
function pick(columns: Columns, rows: number[]): Columns {
  return Object.fromEntries(
    Object.entries(columns).map(([name, column]) => {
      const Column = column.constructor as new (values: number[]) => typeof column;
      return [name, new Column(rows.map((row) => column[row]!))];
    }),
  );
}

export interface Edit {
  section: (typeof SECTIONS)[number];
  what: "value" | "shift" | "drop" | "repeat" | "swap" | "join" | "chunks";
  row: number;
  column: number;
  value: number;
}

export const editArbitrary: fc.Arbitrary<Edit> = fc.record({
  section: fc.constantFrom(...SECTIONS),
  what: fc.constantFrom("value", "shift", "drop", "repeat", "swap", "join", "chunks"),
  row: fc.nat(),
  column: fc.nat(),
  value: edge,
});

export function applyEdit(
  metadata: GvisorMetadata,
  { section, what, row, column, value }: Edit,
): GvisorMetadata {
  if (what === "chunks")
    return {
      ...metadata,
      chunks: { huge: new Uint8Array([...metadata.chunks.huge, column % 2].slice(row % 2)) },
    };
  const columns = { ...metadata[section] } as unknown as Columns;
  const names = Object.keys(columns);
  const length = columns[names[0]!]!.length;
  if (length === 0) return metadata;
  const at = row % length;
  const next = (at + 1) % length;
  const order = [...columns[names[0]!]!.keys()];
  if (what === "drop") return { ...metadata, [section]: pick(columns, order.toSpliced(at, 1)) };
  if (what === "repeat")
    return { ...metadata, [section]: pick(columns, order.toSpliced(at, 0, at)) };
  if (what === "swap")
    return { ...metadata, [section]: pick(columns, order.with(at, next).with(next, at)) };
  const name = what === "join" && names.includes("end") ? "end" : names[column % names.length]!;
  const copy = columns[name]!.slice();
  // A border that moves by a page or a huge page, or over the next range, is more credible than a
  // random number.
  const distance = [-1, 1, PAGE_BYTES, -PAGE_BYTES, 2 ** 21, -(2 ** 21)][column % 6]!;
  if (what === "join") copy[at] = copy[next]!;
  else if (copy instanceof Uint8Array) copy[at] = 1 - copy[at]!;
  else if (what === "value") copy[at] = value;
  else copy[at] = Math.max(0, copy[at]! > 2 ** 52 ? copy[at]! : copy[at]! + distance);
  return { ...metadata, [section]: { ...columns, [name]: copy } };
}
