/** The holders of a PageSource, and its description in messages and statistics. */
import { shownUrl } from "../http/answer.ts";
import type { PageSource } from "./description.ts";
import { holdFiles, isDirect, releaseFiles } from "./file-source.ts";

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

/** How the background pass reads, as `loadStats` reports it. */
export function describeSource(source: PageSource): { isUring: boolean; isDirect: boolean } {
  if (source.kind !== "file") return { isUring: false, isDirect: false };
  return { isUring: source.engine === "uring", isDirect: isDirect(source) };
}

/** True if contents may be damaged on their way, so that reading them again may help. */
export function crossesNetwork(source: PageSource): boolean {
  return source.kind === "remote";
}

/** A content's descriptor for mapping, or -1 if it cannot be mapped. */
export function descriptorOf(source: PageSource, content: number): number {
  return source.kind === "file" ? (source.contents[content]?.fd ?? -1) : -1;
}
