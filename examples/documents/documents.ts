/**
 * Documents with vectors: a table of rows, and a map from ids to rows. The two change together in
 * `batch`, so a checkpoint has both or neither.
 */
import type { Store, Table } from "pgalloc/data";

export const DIMENSIONS = 64;
const columns = { id: "bytes", vector: ["f32", DIMENSIONS], text: "bytes" } as const;
export type Documents = Table<typeof columns>;

export interface Document {
  readonly id: string;
  readonly vector: readonly number[];
  readonly text: string;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const rowBytes = (row: number) => new Uint8Array(Uint32Array.of(row).buffer);
const rowOf = (bytes: Uint8Array | undefined) =>
  bytes === undefined ? undefined : new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);

export const tableOf = (store: Store): Documents => store.table("documents", columns);

/** Writes need all pages they touch: `whenLoaded` runs them again when those are loaded. */
export async function upsert(store: Store, { id, vector, text }: Document): Promise<void> {
  await store.whenLoaded(() =>
    store.batch(() => {
      const [documents, ids] = [tableOf(store), store.map("ids")];
      const values = { id: encoder.encode(id), vector, text: encoder.encode(text) };
      const row = rowOf(ids.get(id));
      if (row !== undefined) return documents.set(row, values);
      const added = documents.push(values);
      try {
        ids.set(id, rowBytes(added));
      } catch (error) {
        // A page of the map is not loaded yet: remove the row, and try again later.
        documents.swapRemove(added);
        throw error;
      }
    }),
  );
}

export async function remove(store: Store, id: string): Promise<boolean> {
  return await store.whenLoaded(() =>
    store.batch(() => {
      const [documents, ids] = [tableOf(store), store.map("ids")];
      const row = rowOf(ids.get(id));
      if (row === undefined) return false;
      // The last row takes this one's number. Steps that can fail because a page is missing come
      // first.
      const last = documents.length - 1;
      const lastId = decoder.decode(documents.get(last).id);
      documents.get(row);
      if (row !== last) ids.set(lastId, rowBytes(row));
      ids.delete(id);
      documents.swapRemove(row);
      return true;
    }),
  );
}

export function documentAt(store: Store, row: number): Document {
  const { id, vector, text } = tableOf(store).get(row);
  return { id: decoder.decode(id), vector: [...vector], text: decoder.decode(text) };
}
