/**
 * Hostile versions of a gVisor export: its metadata has no checksum, so every changed byte is a lie
 * that may be believed.
 */
import fc from "fast-check";
import { decodeMetadata, encodeMetadata } from "../../../src/gvisor/metadata.ts";
import { withLength } from "../../../src/gvisor/stream.ts";
import { applyEdit, editArbitrary } from "../../gvisor/support/edits.ts";
import { PAGE_SIZE } from "../../../src/index.ts";
import type { Hostile } from "./edits.ts";

const FRAME_BYTES = 8;

export function hostileExport(meta: Uint8Array, pagesBytes: number | null): fc.Arbitrary<Hostile> {
  const messageBytes = Number(new DataView(meta.buffer, meta.byteOffset).getBigUint64(0, true));
  const behind = meta.subarray(FRAME_BYTES + messageBytes);
  const decoded = decodeMetadata(meta.slice(FRAME_BYTES, FRAME_BYTES + messageBytes));
  const edited = fc.array(editArbitrary, { minLength: 1, maxLength: 3 }).map((edits) => {
    const message = encodeMetadata(edits.reduce(applyEdit, decoded));
    return new Uint8Array(Buffer.concat([withLength(message), behind]));
  });
  // This format does not detect damage of page contents, so these edits aim at the metadata before
  // them.
  const change = fc.tuple(fc.nat({ max: FRAME_BYTES + messageBytes - 1 }), fc.nat({ max: 255 }));
  const changed = fc.array(change, { minLength: 1, maxLength: 4 }).map((changes) => {
    const copy = meta.slice();
    for (const [at, to] of changes) copy[at] = to;
    return copy;
  });
  const cut = fc.nat({ max: meta.length }).map((end) => meta.slice(0, end));
  const size = fc.oneof(
    { weight: 12, arbitrary: fc.constant(pagesBytes) },
    {
      weight: 1,
      arbitrary: fc
        .constantFrom(-PAGE_SIZE, -1, 1, PAGE_SIZE)
        .map((by) => Math.max(0, (pagesBytes ?? 0) + by)),
    },
    { weight: 1, arbitrary: fc.constant(null) },
  );
  const bytes = fc.oneof(
    { weight: 3, arbitrary: edited },
    { weight: 3, arbitrary: changed },
    { weight: 1, arbitrary: cut },
  );
  return fc.record({ meta: bytes, pagesBytes: size });
}
