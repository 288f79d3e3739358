/**
 * MapModel: the contents of the page map, as plain data in JSON. from-file.ts makes it from a
 * running file, cli/map.ts from a checkpoint. client/ draws it.
 */

/** States of a run, in the order of the legend. */
export const RUN_STATES = ["free", "used", "waste", "held", "releasing", "sub-released"] as const;

/** Runs of equal pages: ordered and disjoint. Pages in no run are free. */
export interface RunRows {
  readonly start: number[];
  readonly length: number[];
  /** Indexes of RUN_STATES. */
  readonly state: number[];
  readonly kind: number[];
  readonly group: number[];
  readonly refs: number[];
}

/** The places of the contents of a checkpoint's pages: ordered and disjoint. */
export interface ExtentRows {
  readonly start: number[];
  readonly length: number[];
  /** Indexes of `contents`. */
  readonly content: number[];
  /** Byte offset of the frame that contains them. */
  readonly offset: number[];
  readonly storedBytes: number[];
  /** Indexes of `codecs`. */
  readonly codec: number[];
}

export interface FileMap {
  readonly name: string;
  readonly sizePages: number;
  /** 1 for a chunk of huge pages. */
  readonly chunkHuge: number[];
  readonly runs: RunRows;
  /** Null for a running file. */
  readonly extents: ExtentRows | null;
}

export interface MapModel {
  readonly title: string;
  /** A live map is updated by the server that serves it. */
  readonly isLive: boolean;
  readonly pageBytes: number;
  readonly unitPages: number;
  readonly chunkPages: number;
  readonly states: readonly string[];
  readonly kinds: readonly string[];
  readonly contents: readonly string[];
  readonly codecs: readonly string[];
  readonly files: readonly FileMap[];
}

/** States of a unit or a page of a file that is loading. */
export const LoadMark = { Loaded: 0, Pending: 1, Failed: 2 } as const;

/** A wait for pages, in milliseconds since the process started. */
export interface AwaitRow {
  readonly cause: string;
  readonly start: number;
  readonly end: number;
  readonly endedMs: number;
  readonly waitMs: number;
}

/** The parts of the model that change while a file runs, as sent to its live maps. */
export interface LiveUpdate {
  readonly nowMs: number;
  /** Changes when the runs may have changed. The map then asks for the model again. */
  readonly version: string;
  readonly files: readonly {
    /** A LoadMark for each unit, in base64; "" when all is loaded. */
    readonly units: string;
    readonly loadedBytes: number;
    readonly totalBytes: number;
    readonly usedBytes: number;
    readonly committedBytes: number;
    /** The slowest waits, slowest first. */
    readonly awaits: readonly AwaitRow[];
  }[];
}

export const KIND_NAMES = ["System", "Anonymous", "PageCache", "Tmpfs", "Ramdiskfs", "Mapped"];
