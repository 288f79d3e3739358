/** What can be done with a PageSource of any kind. A new kind has a case in each function here. */
import type { RingRegistry } from "../aio/uring-queue.ts";
import { holdFiles, isDirect, openFileReader, releaseFiles } from "./file-source.ts";
import { openModuleReader } from "./module-source.ts";
import { shownUrl } from "../http/answer.ts";
import type { PageSource } from "./description.ts";
import type { RemoteSource } from "./remote-source.ts";
import type { ReaderUse, SourceReader } from "./reader.ts";

/**
 * Opens the source for this thread. `rings` is told of io_uring rings, which outlive a thread that
 * dies.
 *
 * @throws {TypeError} for a module that is no page source @throws what opening it throws
 */
export function openReader(
  source: PageSource,
  use: ReaderUse,
  rings?: RingRegistry,
): SourceReader | Promise<SourceReader> {
  switch (source.kind) {
    case "file":
      return openFileReader(source, use, rings);
    case "module":
      return openModuleReader(source, use);
    case "remote":
      return openRemote(source, use);
  }
}

/** Imported on first use: a program without remote places loads none of it. */
async function openRemote(source: RemoteSource, use: ReaderUse): Promise<SourceReader> {
  const { openRemoteReader } = await import("./remote-source.ts");
  return openRemoteReader(source, use);
}

/** Opens a source whose readers block. Precondition: `canBlock`. */
export function openBlockingReader(source: PageSource, use: ReaderUse): SourceReader {
  if (source.kind !== "file") throw new Error(`Cannot read from a ${source.kind} without waiting`);
  return openFileReader(source, use, undefined);
}

/** True if any thread can read from the source without its event loop. */
export function canBlock(source: PageSource): boolean {
  return source.kind === "file";
}

/** One load more holds the source. Precondition: a load holds it. */
export function holdSource(source: PageSource): void {
  if (source.kind === "file") holdFiles(source);
}

/** Ends one hold. The last one gives back what the source keeps for the process. */
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

/** How the background pass reads, as `loadStats` reports it. */
export function describeSource(source: PageSource): { isUring: boolean; isDirect: boolean } {
  if (source.kind !== "file") return { isUring: false, isDirect: false };
  return { isUring: source.engine === "uring", isDirect: isDirect(source) };
}
