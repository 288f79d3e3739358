/**
 * What a PageSource offers beside its readers: holders, mapping, and its description in messages
 * and statistics.
 */
import { fileStatus, mapPrivateAt, readAheadBytes, willNeedFile } from "../../ffi/index.ts";
import { shownUrl } from "../http/shown-url.ts";
import type { CounterHandle } from "../http/counters.ts";
import type { PageSource } from "./description.ts";
import {
  chooseEngine,
  holdFiles,
  isDirect,
  type PlannedReads,
  releaseFiles,
} from "./file-source.ts";

/** Adds a hold for another load. Precondition: a load holds the source. */
export function holdSource(source: PageSource): void {
  if (source.kind === "file") holdFiles(source);
}

/** Ends one hold. The last one frees what the source keeps for the process. */
export function releaseSource(source: PageSource): void {
  if (source.kind === "file") releaseFiles(source);
}

/** A content's name for messages: a path or a URL. */
export function contentName(source: PageSource, content: number): string {
  if (source.kind === "file") return source.contents[content]?.path ?? `content ${content}`;
  if (source.kind === "remote") {
    const url = source.contents[content]?.url;
    return url === undefined ? `content ${content}` : shownUrl(url);
  }
  return source.names?.[content] ?? `content ${content} of ${source.module}`;
}

/**
 * The source, to be read in the best way; it replaces the one given. Precondition: if the queue is
 * "uring", io_uring is available. `plan` is called only if the source has a choice.
 *
 * @throws {SyscallError} with the source as it was
 */
export function chooseReads(
  source: PageSource,
  queue: "auto" | "uring",
  plan: () => PlannedReads,
): PageSource {
  return source.kind === "file" ? chooseEngine(source, queue, plan()) : source;
}

/** Counters of requests to a server; null if the source sends none. */
export function requestCounters(source: PageSource): CounterHandle | null {
  return source.kind === "remote" ? source.counters : null;
}

/** How the background pass reads, as `loadStats` reports it. */
export function describeSource(source: PageSource): { isUring: boolean; isDirect: boolean } {
  if (source.kind !== "file") return { isUring: false, isDirect: false };
  return { isUring: source.engine === "uring", isDirect: isDirect(source) };
}

/** True if contents may be damaged on their way, so that reading them again may help. */
export function crossesNetwork(source: PageSource): boolean {
  return source.kind === "remote";
}

/** True if the content can be mapped into memory. */
export function canMap(source: PageSource, content: number): boolean {
  return source.kind === "file" && (source.contents[content]?.fd ?? -1) >= 0;
}

/** Bytes of a content. */
export interface ContentBytes {
  readonly content: number;
  /** A multiple of the page size, to be mapped. */
  readonly offset: number;
  readonly lengthBytes: number;
}

/**
 * Replaces the mapping at `address` by a private mapping of these bytes. Precondition: `canMap`.
 * @throws {SyscallError} with the memory unchanged
 */
export function mapContent(source: PageSource, bytes: ContentBytes, address: number): void {
  if (source.kind !== "file") throw new Error(`Cannot map a ${source.kind}`);
  mapPrivateAt(address, bytes.lengthBytes, source.contents[bytes.content]!.fd, bytes.offset);
}

/** True if a local content ends before that byte: another program has cut its file. */
export function endsBefore(source: PageSource, content: number, end: number): boolean {
  if (source.kind !== "file") return false;
  const fd = source.contents[content]?.fd ?? -1;
  return fd >= 0 && fileStatus(fd).sizeBytes < end;
}

/** True if `adviseContent` has an effect. */
export function canAdvise(source: PageSource): boolean {
  return source.kind === "file";
}

/** Has the kernel begin to read these bytes into the page cache. A hint. */
export function adviseContent(source: PageSource, bytes: ContentBytes): void {
  const fd = source.kind === "file" ? source.contents[bytes.content]?.fd : undefined;
  if (fd !== undefined && fd >= 0) willNeedFile(fd, bytes.offset, bytes.lengthBytes);
}

/** How many bytes the kernel reads ahead in a content that is mapped; 0 if it does not tell. */
export function mappedReadAhead(source: PageSource, content: number): number {
  if (source.kind !== "file" || !canMap(source, content)) return 0;
  return readAheadBytes(source.contents[content]!.fd);
}
