/** pgalloc/data: data structures in page memory, that are checkpointed and restored with it. */
export {
  CorruptStoreError,
  DroppedError,
  ReadOnlyStoreError,
  StaleHandleError,
  StoreBusyError,
  WrongTypeError,
} from "../errors/store.ts";
export type { CellOf, ColumnType, InputOf, RowInput, RowOf, Schema } from "./column-types.ts";
export type { Heap } from "./heap.ts";
export type { KeyOf, KeyType } from "./keys.ts";
export type { StoreMap } from "./map.ts";
export type { MapOptions, SetOptions } from "./map-options.ts";
export type { Table } from "./table.ts";
export { Store } from "./store.ts";
export type {
  CheckpointOptions,
  StoreAttachOptions,
  StoreHandle,
  StoreOptions,
} from "./store-options.ts";
