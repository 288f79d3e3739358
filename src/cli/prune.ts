/** `pgalloc prune URL --keep N`: removes old checkpoints, and objects of writers that died. */
import type { Bucket } from "../http/bucket.ts";
import { openBucketOf } from "../remote/place.ts";
import { prune as pruneBucket, type PruneOptions, type PruneReport } from "../remote/prune.ts";
import { parseArguments, parseInteger, UsageError } from "./arguments.ts";
import { count } from "../data/describe.ts";
import { formatBytes } from "./bytes.ts";
import { TerminalProgress, S3_FLAGS, s3Of } from "./remote-arguments.ts";
import { print } from "./print.ts";

const HOUR_MS = 3_600_000;
const HOURS_MIN = 24;
const HOURS_MAX = 10 * 366 * 24;

export async function prune(args: string[]): Promise<number> {
  const { values, positionals } = parseArguments(
    args,
    {
      keep: { type: "string" },
      "min-age": { type: "string" },
      "dry-run": { type: "boolean" },
      json: { type: "boolean" },
      ...S3_FLAGS,
    },
    ["URL, as s3://bucket/prefix"],
  );
  if (values.keep === undefined) throw new UsageError("Expected --keep N");
  const keep = parseInteger("--keep", values.keep, 1, 1_000_000);
  const hours = parseInteger("--min-age", values["min-age"] ?? "24", HOURS_MIN, HOURS_MAX);
  const dryRun = values["dry-run"] === true;
  const bucket = await openBucketOf(positionals[0]!, { s3: s3Of(values) });
  const report = await pruneShown(bucket, { keep, minAgeMs: hours * HOUR_MS, dryRun });
  if (values.json === true) print(JSON.stringify(report, null, 2));
  else {
    const { kept, removedCheckpoints, removedPageFiles, removedBytes, abortedUploads } = report;
    const verb = dryRun ? "Would remove" : "Removed";
    print(`Kept ${count(kept.length, "checkpoint")}: ${kept.join(", ") || "none"}`);
    print(
      `${verb} ${count(removedCheckpoints.length, "checkpoint")}, ` +
        `${count(removedPageFiles, "page file")} and ` +
        `${count(abortedUploads, "unfinished upload")}: ${formatBytes(removedBytes)}`,
    );
  }
  return 0;
}

async function pruneShown(bucket: Bucket, options: PruneOptions): Promise<PruneReport> {
  using progress = new TerminalProgress();
  let removed = 0;
  return await pruneBucket(bucket, {
    ...options,
    onProgress: () => progress.show(count(++removed, "object")),
  });
}
