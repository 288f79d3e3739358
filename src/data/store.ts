/**
 * Store: the structures of a MemoryFile by name.
 *
 * Its life: opened (by one writer per directory, or read-only) → used, also by other threads that
 * attach → closed by its opener, which checkpoints and destroys the file.
 */
import type { KeptLock } from "../checkpoint/directory-lock.ts";
import { INSPECT } from "../core/describe.ts";
import { count, describeStructure } from "./describe.ts";
import {
  checkBoolean,
  checkFunction,
  checkInteger,
  checkSynchronous,
  showValue,
} from "../../ffi/index.ts";
import { checkMode, type LoadOptions, type Nullable, readOptions } from "../core/options.ts";
import { DestroyedError, NotLoadedError, UnsupportedError } from "../errors/errors.ts";
import { CorruptStoreError, ReadOnlyStoreError, WrongTypeError } from "../errors/store.ts";
import { MemoryFile } from "../file/memory-file.ts";
import { resolveLoadOptions } from "../file/restore-file.ts";
import { shownPlace } from "../http/shown-url.ts";
import { resolvePlace } from "../remote/place.ts";
import { PeriodicSaves } from "../file/periodic-saves.ts";
import type { SaveReport } from "../save/save.ts";
import { Arena } from "./arena.ts";
import { MapWord } from "./buckets.ts";
import { StoreControl } from "./control.ts";
import { createArena, openArena } from "./open-arena.ts";
import { KIND_NAMES, checkName, type HeaderPlace, StructureKind } from "./header.ts";
import { Heap } from "./heap.ts";
import { KEY_TYPES, type KeyType } from "./keys.ts";
import { StoreMap } from "./map.ts";
import type { MapOptions } from "./map-options.ts";
import { createMap, dropMap, findMap } from "./map-header.ts";
import type { FileMetrics } from "../metrics/metrics.ts";
import type { Schema } from "./column-types.ts";
import { Table } from "./table.ts";
import { dropTable, openTable } from "./table-header.ts";
import { StoreParts } from "./parts.ts";
import { lockDirectory, openStoreFile, saveStore } from "./store-file.ts";
import { forgetLock, watchLock } from "./forgotten-lock.ts";
import type {
  CheckpointOptions,
  StoreAttachOptions,
  StoreHandle,
  StoreOptions,
} from "./store-options.ts";

const MIN_CHECKPOINT_MS = 10;
/**
 * How long a save waits for a writing thread to come between two operations: a batch may be long.
 */
const STOP_TIMEOUT_MS = 10_000;

/** What only the opener has; undefined in a thread that attached. */
interface Owner {
  readonly place: string;
  readonly s3: LoadOptions["s3"];
  readonly mode: number | undefined;
  readonly lock: KeptLock | undefined;
}

/** Named maps, tables and blocks in page memory, saved and restored as one checkpoint. */
export class Store implements Disposable, AsyncDisposable {
  /**
   * The store's MemoryFile. Ranges that a program allocates here are in the store's checkpoints.
   */
  readonly memory: MemoryFile;
  readonly heap: Heap;
  readonly isReadOnly: boolean;
  private readonly parts: StoreParts;
  private readonly arena: Arena;
  private readonly rootStart: number;
  private readonly owner: Owner | undefined;
  private readonly maps = new Map<string, StoreMap<KeyType>>();
  private readonly tables = new Map<string, Table>();
  private periodic: PeriodicSaves<SaveReport> | undefined;
  /** The checkpoint under way. */
  private saving: Promise<unknown> = Promise.resolve();

  private constructor(arena: Arena, owner: Owner | undefined, now: () => number) {
    if (!(arena instanceof Arena))
      throw new TypeError("Cannot construct a Store: use Store.open() or Store.attach()");
    this.arena = arena;
    this.memory = arena.file;
    this.rootStart = arena.starts[0]!;
    this.isReadOnly = arena.isReadOnly;
    this.owner = owner;
    this.parts = new StoreParts(arena, now);
    this.heap = new Heap(this.parts);
  }

  /**
   * Opens the store in a directory. Resolves when the store's names are known; the rest loads while
   * the program runs (see `whenLoaded`).
   *
   * @throws {NoCheckpointError} if there is none, without `create`
   * @throws {StoreBusyError} if another writer has it open
   * @throws {CorruptStoreError} if the checkpoint is not of a store, or its pages are damaged
   * @throws as MemoryFile.loadFrom
   */
  static async open(where: string, given?: Nullable<StoreOptions> | null): Promise<Store> {
    const options = readOptions<StoreOptions>(given);
    const { create = false, readOnly = false, mode, s3 } = options;
    const { checkpointEveryMs, onCheckpointError } = options;
    const { now = Date.now, ...rest } = options;
    const place = resolvePlace(where);
    const loadOptions = resolveLoadOptions(place, rest);
    checkBoolean("create", create);
    checkBoolean("readOnly", readOnly);
    checkFunction("now", now);
    if (onCheckpointError !== undefined) checkFunction("onCheckpointError", onCheckpointError);
    if (checkpointEveryMs !== undefined)
      checkInteger("checkpointEveryMs", checkpointEveryMs, MIN_CHECKPOINT_MS, 2 ** 31 - 1);
    checkMode(mode);
    const lock = readOnly ? undefined : lockDirectory(place, create, mode);
    let file: MemoryFile | null = null;
    try {
      const opened = await openStoreFile(place, create && !readOnly, loadOptions);
      ({ file } = opened);
      const arena = opened.isNew ? createArena(file) : await openArena(file, readOnly);
      const store = new Store(arena, { place, lock, s3, mode }, now);
      await store.whenLoaded(() => store.names());
      if (checkpointEveryMs !== undefined && !readOnly)
        store.periodic = new PeriodicSaves(() => store.checkpoint(), checkpointEveryMs, {
          onError: onCheckpointError,
        });
      // Last: after an error the lock is closed below, and only there.
      if (lock !== undefined) watchLock(store, { lock, control: arena.control });
      return store;
    } catch (error) {
      file?.destroy();
      lock?.close();
      throw error;
    }
  }

  [INSPECT](): string {
    const place = this.owner === undefined ? null : shownPlace(this.owner.place);
    return describeStructure("Store", place, () =>
      [count(this.names().length, "structure"), String(this.memory)].join(", "),
    );
  }

  /** Counters of the store's pages: memory, load, waits, saves, errors. */
  metrics(): FileMetrics {
    return this.memory.metrics();
  }

  /** A handle for other threads of this process: post it to a Worker and `attach` it there. */
  share(): StoreHandle {
    const memory = this.memory.share();
    this.arena.control.markShared();
    const control = this.arena.control.words.buffer;
    return { kind: "pgalloc.Store", memory, control, rootStart: this.rootStart };
  }

  /**
   * Opens a store that another thread of this process shares. Any thread may read at any time. One
   * thread writes at a time; the others wait.
   *
   * @throws {TypeError} for a handle that `share()` did not make
   * @throws {DestroyedError} {TooManyThreadsError}
   */
  static attach(handle: StoreHandle, given?: Nullable<StoreAttachOptions> | null): Store {
    const options = readOptions<StoreAttachOptions>(given);
    if (handle?.kind !== "pgalloc.Store")
      throw new TypeError(
        `Expected a handle made by Store.share() in this process, got ${showValue(handle)}`,
      );
    const { readOnly = false, now = Date.now } = options;
    checkFunction("now", now);
    const control = new StoreControl(handle.control);
    const file = MemoryFile.attach(handle.memory, { readOnly });
    const arena = new Arena(file, control, handle.rootStart, readOnly);
    arena.beginRead("Store.attach()");
    arena.readWindows();
    return new Store(arena, undefined, now);
  }

  /**
   * The map of that name; makes it if it does not exist. A map's key type never changes. Limits
   * that are given replace those it has. A reader may give only those it has.
   *
   * @throws {WrongTypeError} if it is not a map, or has keys of another type
   * @throws {OutOfMemoryError} {NotLoadedError} {ReadOnlyStoreError} with nothing changed
   */
  map<K extends KeyType = "string">(
    name: string,
    given?: Nullable<MapOptions<K>> | null,
  ): StoreMap<K> {
    checkName(name);
    const options: MapOptions<K> = given == null ? {} : readOptions<MapOptions<K>>(given);
    const { key: type = "string" as K } = options;
    if (!KEY_TYPES.includes(type))
      throw new TypeError(
        `Expected key to be one of ${KEY_TYPES.join(", ")}, got ${showValue(type)}`,
      );
    this.arena.beginRead("map()");
    const find = () => findMap(this.parts, name, options);
    const found = this.arena.mayBeRaced ? this.arena.readLocked(find) : find();
    const place = found ?? createMap(this.parts, name, type, options);
    const known = this.maps.get(name);
    const stored = KEY_TYPES[this.arena.get(place.window, place.word + MapWord.KeyType)];
    if (stored === undefined) throw new CorruptStoreError(`A map has an unknown type of keys`);
    if (stored !== type && (options.key !== undefined || stored !== "string"))
      throw new WrongTypeError(name, `a map of ${type} keys`, `a map of ${stored} keys`);
    if (known?.isOf(place) === true) return known as unknown as StoreMap<K>;
    const map = new StoreMap(this.parts, place, type);
    this.maps.set(name, map as unknown as StoreMap<KeyType>);
    return map;
  }

  /**
   * The table of that name; makes it if it does not exist. `schema` names columns and their types;
   * the table may have more. Without `schema` the table must exist.
   *
   * @throws {WrongTypeError} if it is not a table, or a column is missing or of another type
   * @throws {OutOfMemoryError} {NotLoadedError} {ReadOnlyStoreError} with nothing changed
   */
  table<S extends Schema>(name: string, schema?: S): Table<S> {
    checkName(name);
    this.arena.beginRead("table()");
    const open = () => openTable(this.parts, name, schema);
    const place = this.arena.mayBeRaced ? this.arena.readLocked(open) : open();
    const known = this.tables.get(name);
    if (known?.isOf(place) === true) return known as unknown as Table<S>;
    const table = new Table<S>(this.parts, place);
    this.tables.set(name, table as unknown as Table);
    return table;
  }

  /** The names of all structures, and their kinds. @throws {NotLoadedError} */
  names(): { readonly name: string; readonly kind: string }[] {
    this.arena.beginRead("names()");
    const read = () =>
      [...this.parts.names.all().values()].map(({ name, kind }) => ({
        name,
        kind: KIND_NAMES[kind]!,
      }));
    return this.arena.mayBeRaced ? this.arena.readLocked(read) : read();
  }

  /**
   * Removes a structure and all its contents. False if there is none. @throws {NotLoadedError}
   * {ReadOnlyStoreError}
   */
  drop(name: string): boolean {
    checkName(name);
    return this.arena.batch("drop()", () => {
      const place = this.parts.names.all().get(name);
      if (place === undefined) return false;
      this.arena.requireAllLoaded();
      this.dropPlace(place);
      this.maps.delete(name);
      this.tables.delete(name);
      return true;
    });
  }

  private dropPlace(place: HeaderPlace): void {
    if (place.kind === StructureKind.Map) dropMap(this.parts, place);
    else dropTable(this.parts, place);
  }

  /**
   * Runs `change` and takes the lock once: no other thread writes, and no checkpoint is taken,
   * between its operations. It is not a transaction: if one operation throws, those before it stay
   * done. `change` is synchronous.
   */
  batch<T>(change: () => T): T {
    checkSynchronous("change", change);
    return this.arena.batch("batch()", change);
  }

  /**
   * Runs `use`, a synchronous function, until all pages that it reads are loaded. When it meets a
   * page that is not, that page is loaded ahead of all others, and `use` runs again from the start.
   * So `use` should only read, or write once.
   *
   * @throws what `use` throws, or the error that keeps a page from loading
   */
  async whenLoaded<T>(use: () => T): Promise<T> {
    checkSynchronous("use", use);
    for (;;) {
      try {
        return use();
      } catch (error) {
        if (!(error instanceof NotLoadedError)) throw error;
        await this.memory.awaitLoad({ start: error.start, end: error.end });
      }
    }
  }

  /**
   * Saves the whole store, as of one instant, into its directory. After a crash or kill -9 the
   * store is as in its last checkpoint: later changes are lost.
   *
   * @throws {ReadOnlyStoreError} {SyscallError} {CheckpointBusyError} {CheckpointConflictError}
   * and the last checkpoint stays intact
   */
  async checkpoint(given?: Nullable<CheckpointOptions> | null): Promise<SaveReport> {
    const { incremental = true } = readOptions<CheckpointOptions>(given);
    checkBoolean("incremental", incremental);
    const save = this.saving.then(() => this.save(incremental));
    // The caller gets a failure; the next checkpoint only waits until this one ends.
    this.saving = Promise.allSettled([save]);
    return await save;
  }

  private async save(incremental: boolean): Promise<SaveReport> {
    if (this.isReadOnly || this.owner === undefined) throw new ReadOnlyStoreError("checkpoint()");
    this.arena.beginRead("checkpoint()");
    const { place, lock, s3, mode } = this.owner;
    const where = { place, lock, rootStart: this.rootStart };
    const options = { s3, mode, incremental, stopTimeoutMs: STOP_TIMEOUT_MS };
    return await saveStore(this.memory, where, options);
  }

  /**
   * Makes a read-only store the newest checkpoint, in place: loads only what changed, and its maps
   * and tables stay valid. Views end, and threads that attached must attach again. Resolves with
   * false if there is no newer checkpoint.
   *
   * @throws {UnsupportedError} for a store that can be written to, or has no checkpoint
   * @throws {CorruptStoreError} if another store is there now
   * @throws as MemoryFile.refresh
   */
  async refresh(): Promise<boolean> {
    if (!this.isReadOnly || this.owner === undefined)
      throw new UnsupportedError("Cannot refresh a store that is not open with readOnly");
    if (this.arena.isClosed) throw new DestroyedError("the store", "refresh()", false, "close()");
    if (!(await this.memory.refresh())) return false;
    await this.whenLoaded(() => this.names());
    return true;
  }

  /**
   * Checkpoints (unless read-only) and ends the store for all its threads. In a thread that
   * attached, ends it for that thread. A second call does nothing.
   *
   * @throws as `checkpoint`: the store is still open then
   */
  async close(): Promise<void> {
    if (this.arena.isClosed) return;
    await this.periodic?.stop();
    if (this.owner !== undefined && !this.isReadOnly) await this.checkpoint();
    this[Symbol.dispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Ends the store without a checkpoint. */
  [Symbol.dispose](): void {
    if (this.arena.isClosed) return;
    this.arena.isClosed = true;
    void this.periodic?.stop();
    if (this.owner === undefined) return;
    const { lock } = this.owner;
    forgetLock(this);
    this.memory.destroy();
    // A checkpoint under way still writes to the directory.
    void this.saving.then(() => lock?.close());
  }
}
