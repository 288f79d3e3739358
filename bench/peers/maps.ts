/**
 * Maps of keys to bytes: a store's, and its peers'. Each peer works as its authors advise for
 * speed: LMDB and SQLite without a sync for each transaction, many writes in one.
 */
import { Database } from "bun:sqlite";
import type { Store, StoreHandle } from "../../src/data/index.ts";

export type Key = string | Uint8Array | number;
export type KeyKind = "string" | "bytes" | "u32";

export interface MapPeer {
  get(key: Key): Uint8Array | undefined;
  /** Without a copy, if the peer has such a call. */
  getView?(key: Key): Uint8Array | undefined;
  /** One entry in a transaction of its own: other threads see it when this returns. */
  set(key: Key, value: Uint8Array): void;
  /** Many entries in one transaction. */
  setAll(keys: readonly Key[], value: Uint8Array): void;
  /** What `joinMap` in a Worker needs. Absent if threads cannot share the map. */
  share?(): unknown;
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

/** The map of another thread, given the result of its `share`. */
export async function joinMap(by: string, shared: unknown, kind: KeyKind): Promise<MapPeer> {
  if (by === "lmdb") return await openLmdbMap(shared as string);
  if (by === "sqlite") return openSqlite(shared as string, kind);
  const { Store } = await import("../../src/data/index.ts");
  return mapOf(Store.attach(shared as StoreHandle), kind);
}

async function openStore(directory: string, kind: KeyKind): Promise<MapPeer> {
  // Not at the top: the start of another peer must not include this import.
  const { Store } = await import("../../src/data/index.ts");
  return mapOf(await Store.open(directory, { create: true }), kind);
}

function mapOf(store: Store, kind: KeyKind): MapPeer {
  const map = store.map("bench", { key: kind });
  return {
    get: (key) => map.get(key as never),
    getView: (key) => map.getView(key as never),
    set: (key, value) => map.set(key as never, value),
    setAll(keys, value) {
      store.batch(() => {
        for (const key of keys) map.set(key as never, value);
      });
    },
    share: () => store.share(),
    close: () => store.close(),
  };
}

/** A Map cannot have bytes as keys, so a string represents them. */
function openJsMap(kind: KeyKind): MapPeer {
  const map = new Map<Key, Uint8Array>();
  const keyOf = (key: Key) => (kind === "bytes" ? (key as Buffer).toString("latin1") : key);
  return {
    get: (key) => map.get(keyOf(key)),
    set: (key, value) => map.set(keyOf(key), value.slice()),
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
    set: (key, value) => database.putSync(key, value),
    share: () => directory,
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
  database.exec("PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF");
  const type = { string: "TEXT", bytes: "BLOB", u32: "INTEGER" }[kind];
  const rowid = kind === "u32" ? "" : "WITHOUT ROWID";
  database.exec(`CREATE TABLE IF NOT EXISTS entries (k ${type} PRIMARY KEY, v BLOB) ${rowid}`);
  const select = database.query<{ v: Uint8Array }, [Key]>("SELECT v FROM entries WHERE k = ?");
  const insert = database.query("INSERT OR REPLACE INTO entries VALUES (?, ?)");
  return {
    get: (key) => select.get(key)?.v,
    set: (key, value) => insert.run(key, value),
    share: () => directory,
    setAll: database.transaction((keys: readonly Key[], value: Uint8Array) => {
      for (const key of keys) insert.run(key, value);
    }),
    close: async () => database.close(),
  };
}
