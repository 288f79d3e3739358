/**
 * `pgalloc copy FROM TO`: copies a checkpoint from any place to any other. Page files stay
 * unchanged.
 */
import { count } from "../data/describe.ts";
import type { S3Options } from "../http/s3-options.ts";
import { shownPlace } from "../http/shown-url.ts";
import { copyCheckpoint, type CopyReport } from "../remote/copy.ts";
import { parseArguments } from "./arguments.ts";
import { formatBytes } from "./bytes.ts";
import { S3_FLAGS, s3Of, TerminalProgress } from "./remote-arguments.ts";
import { print } from "./print.ts";

export async function copy(args: string[]): Promise<number> {
  const { values, positionals } = parseArguments(args, { json: { type: "boolean" }, ...S3_FLAGS }, [
    "FROM, a checkpoint's directory or URL",
    "TO, a directory or an s3:// URL",
  ]);
  const [from, to] = positionals as [string, string];
  const report = await copyShown(from, to, s3Of(values));
  if (values.json === true)
    print(JSON.stringify({ from: shownPlace(from), to: shownPlace(to), ...report }, null, 2));
  else {
    const { id, copiedBytes, pageFiles, reusedPageFiles } = report;
    print(`Copied checkpoint ${id}: ${formatBytes(copiedBytes)}`);
    if (reusedPageFiles > 0)
      print(`${reusedPageFiles} of ${count(pageFiles, "page file")} there already`);
  }
  return 0;
}

async function copyShown(from: string, to: string, s3: S3Options): Promise<CopyReport> {
  using progress = new TerminalProgress();
  return await copyCheckpoint(from, to, {
    s3,
    onProgress: ({ copiedBytes, totalBytes }) => progress.transfer(copiedBytes, totalBytes),
  });
}
