/**
 * `pgalloc copy FROM TO`: copies a checkpoint from any place to any other. Page files stay
 * unchanged.
 */
import { count } from "../data/describe.ts";
import { shownPlace } from "../http/shown-url.ts";
import { copyCheckpoint } from "../remote/copy.ts";
import { parseArguments } from "./arguments.ts";
import { formatBytes } from "./bytes.ts";
import { S3_FLAGS, s3Of, TransferProgress } from "./remote-arguments.ts";
import { print } from "./print.ts";

export async function copy(args: string[]): Promise<number> {
  const { values, positionals } = parseArguments(args, { json: { type: "boolean" }, ...S3_FLAGS }, [
    "FROM, a checkpoint's directory or URL",
    "TO, a directory or an s3:// URL",
  ]);
  const [from, to] = positionals as [string, string];
  const progress = new TransferProgress();
  const report = await copyCheckpoint(from, to, {
    s3: s3Of(values),
    onProgress: ({ copiedBytes, totalBytes }) => progress.show(copiedBytes, totalBytes),
  });
  progress.end();
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
