/**
 * Maps of keys to bytes: a store's, and its peers'. Each peer works as its authors advise for
 * speed: LMDB and SQLite without a sync for each transaction, many writes in one.
 */
import { Database } from "bun:sqlite";
import { Store } from "../../src/data/index.ts";

export type Key = string | Uint8Array | number;
export type KeyKind = "string" | "bytes" | "u32";

export interface MapPeer {
  get(key: Key): Uint8Array | undefined;
  /** Without a copy, if the peer has such a call. */
  getView?(key: Key): Uint8Array | undefined;
  /** Many entries at once. */
  setAll(keys: readonly Key[], value: Uint8Array): void;
  /** Makes all changes durable, and closes the map. */
  close(): Promise<void>;
}

/** The part of the npm package lmdb that is used here. */
interface LmdbDatabase {
  getBinary(key: Key): Uint8Array | undefined;
  getRange(): Iterable<{ readonly value: Uint8Array }>;
  putSync(key: Key, value: Uint8Array): void;
  transactionSync(work: () => void): void;
  flushed: Promise<unknown>;
  close(): Promise<void>;
}

/** True if the package is installed. */
export function hasLmdb(): boolean {
  try {
    return Bun.resolveSync("lmdb", import.meta.dir) !== "";
  } catch (error) {
    // Bun's ResolveMessage is not an Error.
    if ((error as { code?: string }).code === "ERR_MODULE_NOT_FOUND") return false;
    throw error;
  }
}

export async function openMap(by: string, directory: string, kind: KeyKind): Promise<MapPeer> {
  if (by === "pgalloc") return await openStore(directory, kind);
  if (by === "Map") return openJsMap(kind);
  if (by === "lmdb") return await openLmdbMap(directory);
  if (by === "sqlite") return openSqlite(directory, kind);
  throw new Error(`There is no map by ${by}`);
}

async function openStore(directory: string, kind: KeyKind): Promise<MapPeer> {
  const store = await Store.open(directory, { create: true });
  const map = await store.whenLoaded(() => store.map("bench", { key: kind }));
  return {
    get: (key) => map.get(key as never),
    getView: (key) => map.getView(key as never),
    setAll(keys, value) {
      for (const key of keys) map.set(key as never, value);
    },
    close: () => store.close(),
  };
}

/** A Map cannot have bytes as keys, so a string represents them. */
function openJsMap(kind: KeyKind): MapPeer {
  const map = new Map<Key, Uint8Array>();
  const keyOf = (key: Key) => (kind === "bytes" ? (key as Buffer).toString("latin1") : key);
  return {
    get: (key) => map.get(keyOf(key)),
    setAll(keys, value) {
      // As in a store, later changes of the bytes do not matter.
      for (const key of keys) map.set(keyOf(key), value.slice());
    },
    close: async () => map.clear(),
  };
}

/** An lmdb database of binary values that does not sync. The package is installed. */
export async function openLmdb(directory: string): Promise<LmdbDatabase> {
  // The name is in a variable, so type-checking needs no package.
  const name = "lmdb";
  const lmdb = (await import(name)) as { open(options: object): LmdbDatabase };
  return lmdb.open({ path: directory, encoding: "binary", noSync: true });
}

async function openLmdbMap(directory: string): Promise<MapPeer> {
  const database = await openLmdb(directory);
  return {
    get: (key) => database.getBinary(key),
    setAll(keys, value) {
      database.transactionSync(() => {
        for (const key of keys) database.putSync(key, value);
      });
    },
    async close() {
      await database.flushed;
      await database.close();
    },
  };
}

function openSqlite(directory: string, kind: KeyKind): MapPeer {
  const database = new Database(`${directory}.sqlite`, { create: true });
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF");
  const type = { string: "TEXT", bytes: "BLOB", u32: "INTEGER" }[kind];
  const rowid = kind === "u32" ? "" : "WITHOUT ROWID";
  database.exec(`CREATE TABLE IF NOT EXISTS entries (k ${type} PRIMARY KEY, v BLOB) ${rowid}`);
  const select = database.query<{ v: Uint8Array }, [Key]>("SELECT v FROM entries WHERE k = ?");
  const insert = database.query("INSERT OR REPLACE INTO entries VALUES (?, ?)");
  return {
    get: (key) => select.get(key)?.v,
    setAll: database.transaction((keys: readonly Key[], value: Uint8Array) => {
      for (const key of keys) insert.run(key, value);
    }),
    close: async () => database.close(),
  };
}
