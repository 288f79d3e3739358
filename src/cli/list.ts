/** `pgalloc list URL`: the checkpoints of a place in S3, the newest first. */
import type { Bucket } from "../http/bucket.ts";
import { listPublished, type Published } from "../remote/manifests.ts";
import { readManifest } from "../remote/open-checkpoint.ts";
import { openBucketOf } from "../remote/place.ts";
import { parseArguments } from "./arguments.ts";
import { formatBytes } from "./bytes.ts";
import { S3_FLAGS, s3Of } from "./remote-arguments.ts";
import { print } from "./print.ts";

interface Row {
  readonly sequence: number;
  readonly id: string;
  readonly published: string;
  readonly metaBytes: number;
  readonly pageFiles: number;
  /** All page files together. Checkpoints may share them. */
  readonly storedBytes: number;
}

export async function list(args: string[]): Promise<number> {
  const { values, positionals } = parseArguments(args, { json: { type: "boolean" }, ...S3_FLAGS }, [
    "URL, as s3://bucket/prefix",
  ]);
  const bucket = await openBucketOf(positionals[0]!, { s3: s3Of(values) });
  const rows: Row[] = [];
  for await (const published of listPublished(bucket)) rows.push(await describe(bucket, published));
  if (values.json === true) print(JSON.stringify(rows, null, 2));
  else for (const row of rows) print(lineOf(row));
  return 0;
}

async function describe(bucket: Bucket, published: Published): Promise<Row> {
  const { manifest } = await readManifest(bucket.client, bucket.url(published.key));
  return {
    sequence: published.sequence,
    id: manifest.id.toString(16).padStart(16, "0"),
    published: new Date(published.modifiedMs).toISOString(),
    metaBytes: published.sizeBytes,
    pageFiles: manifest.pageFiles.length,
    storedBytes: manifest.pageFiles.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
  };
}

function lineOf({ sequence, id, published, pageFiles, storedBytes }: Row): string {
  const files = `${pageFiles} page ${pageFiles === 1 ? "file" : "files"}`;
  const size = `${formatBytes(storedBytes)} in ${files}`;
  return [String(sequence).padStart(8), id, published, size].join("  ");
}
