/**
 * A service for documents with vectors and text, over a store and over its alternatives: JavaScript
 * objects that are serialized as a whole, lmdb, bun:sqlite.
 */
import { Database } from "bun:sqlite";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { deserialize, serialize } from "node:v8";
import { openLmdb } from "./maps.ts";

export const DIMENSIONS = 128;

export interface Document {
  readonly vector: Float32Array;
  readonly text: string;
}

export interface Documents {
  upsertAll(documents: readonly (readonly [id: string, document: Document])[]): void;
  get(id: string): Document | undefined;
  /** The largest dot product with a vector, over all documents. */
  scan(query: Float32Array): number;
  /** Makes all changes durable. */
  checkpoint(): Promise<void>;
  close(): Promise<void>;
}

export const CONTENDERS = ["pgalloc", "Map", "lmdb", "sqlite"] as const;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export async function openDocuments(by: string, directory: string): Promise<Documents> {
  if (by === "pgalloc") return await openStore(directory);
  if (by === "Map") return openObjects(directory);
  if (by === "lmdb") return await openWithLmdb(directory);
  return openWithSqlite(directory);
}

function bestOf(query: Float32Array, vectors: Float32Array): number {
  let best = Number.NEGATIVE_INFINITY;
  for (let at = 0; at < vectors.length; at += DIMENSIONS) {
    let score = 0;
    for (let i = 0; i < DIMENSIONS; i++) score += query[i]! * vectors[at + i]!;
    if (score > best) best = score;
  }
  return best;
}

async function openStore(directory: string): Promise<Documents> {
  // Not at the top: the start of another peer must not include this import.
  const { Store } = await import("../../src/data/index.ts");
  const store = await Store.open(directory, { create: true });
  const ids = await store.whenLoaded(() => store.map("ids"));
  const schema = { vector: ["f32", DIMENSIONS], text: "bytes" } as const;
  const table = await store.whenLoaded(() => store.table("documents", schema));
  const rowOf = (id: string) => {
    const bytes = ids.get(id);
    if (bytes === undefined) return -1;
    return bytes[0]! | (bytes[1]! << 8) | (bytes[2]! << 16) | (bytes[3]! << 24);
  };
  const bytesOf = (row: number) => Uint8Array.of(row, row >> 8, row >> 16, row >> 24);
  const upsert = (id: string, { vector, text }: Document) => {
    const values = { vector, text: encoder.encode(text) };
    const row = rowOf(id);
    if (row >= 0) table.set(row, values);
    else ids.set(id, bytesOf(table.push(values)));
  };
  return {
    upsertAll(documents) {
      store.batch(() => {
        for (const [id, document] of documents) upsert(id, document);
      });
    },
    get(id) {
      const row = rowOf(id);
      if (row < 0) return undefined;
      const { vector, text } = table.get(row);
      return { vector, text: decoder.decode(text) };
    },
    scan: (query) => Math.max(...table.column("vector").map((chunk) => bestOf(query, chunk))),
    async checkpoint() {
      await store.checkpoint();
    },
    close: () => store.close(),
  };
}

function openObjects(directory: string): Documents {
  const path = `${directory}.v8`;
  const documents: Map<string, Document> = existsSync(path)
    ? deserialize(readFileSync(path))
    : new Map();
  return {
    upsertAll(added) {
      for (const [id, { vector, text }] of added)
        documents.set(id, { vector: vector.slice(), text });
    },
    get: (id) => documents.get(id),
    scan(query) {
      let best = Number.NEGATIVE_INFINITY;
      for (const { vector } of documents.values()) best = Math.max(best, bestOf(query, vector));
      return best;
    },
    async checkpoint() {
      writeFileSync(`${path}.new`, serialize(documents), { flush: true });
      renameSync(`${path}.new`, path);
    },
    close: async () => documents.clear(),
  };
}

/** Vector and text, one behind the other. */
function pack({ vector, text }: Document): Uint8Array {
  const bytes = encoder.encode(text);
  const packed = new Uint8Array(vector.byteLength + bytes.length);
  packed.set(new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength));
  packed.set(bytes, vector.byteLength);
  return packed;
}

function unpack(packed: Uint8Array): Document {
  const bytes = 4 * DIMENSIONS;
  // A copy, because a Buffer's own slice is not one.
  const vector = new Float32Array(new Uint8Array(packed.subarray(0, bytes)).buffer);
  return { vector, text: decoder.decode(packed.subarray(bytes)) };
}

async function openWithLmdb(directory: string): Promise<Documents> {
  const database = await openLmdb(directory);
  return {
    upsertAll(documents) {
      database.transactionSync(() => {
        for (const [id, document] of documents) database.putSync(id, pack(document));
      });
    },
    get(id) {
      const packed = database.getBinary(id);
      return packed === undefined ? undefined : unpack(packed);
    },
    scan(query) {
      let best = Number.NEGATIVE_INFINITY;
      for (const { value } of database.getRange())
        best = Math.max(best, bestOf(query, unpack(value).vector));
      return best;
    },
    async checkpoint() {
      await database.flushed;
    },
    close: () => database.close(),
  };
}

function openWithSqlite(directory: string): Documents {
  const database = new Database(`${directory}.sqlite`, { create: true });
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF");
  database.exec("CREATE TABLE IF NOT EXISTS documents (id TEXT PRIMARY KEY, v BLOB, t TEXT)");
  const insert = database.query("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)");
  const select = database.query<{ v: Uint8Array; t: string }, [string]>(
    "SELECT v, t FROM documents WHERE id = ?",
  );
  const all = database.query<{ v: Uint8Array }, []>("SELECT v FROM documents");
  const vectorOf = (bytes: Uint8Array) => new Float32Array(new Uint8Array(bytes).buffer);
  return {
    upsertAll: database.transaction((documents: readonly (readonly [string, Document])[]) => {
      for (const [id, { vector, text }] of documents)
        insert.run(id, new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength), text);
    }),
    get(id) {
      const row = select.get(id);
      return row === null ? undefined : { vector: vectorOf(row.v), text: row.t };
    },
    scan(query) {
      let best = Number.NEGATIVE_INFINITY;
      for (const { v } of all.iterate()) best = Math.max(best, bestOf(query, vectorOf(v)));
      return best;
    },
    async checkpoint() {
      database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    },
    close: async () => database.close(),
  };
}
