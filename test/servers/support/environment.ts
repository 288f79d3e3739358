/** The servers that scripts/test-s3.ts has started; none without it. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { S3Options } from "../../../src/index.ts";

const { env } = process;

export interface S3Server {
  readonly title: string;
  readonly s3: S3Options;
}

function s3Of(endpoint: string): S3Options {
  const accessKeyId = env["PGALLOC_S3_ACCESS"]!;
  const secretAccessKey = env["PGALLOC_S3_SECRET"]!;
  return { endpoint, accessKeyId, secretAccessKey };
}

export function s3Servers(): S3Server[] {
  const known = [
    ["S3", env["PGALLOC_S3_DIRECT"]],
    ["S3 with faults", env["PGALLOC_S3_BAD"]],
  ] as const;
  return known.flatMap(([title, endpoint]) =>
    endpoint === undefined ? [] : [{ title, s3: s3Of(endpoint) }],
  );
}

export interface HttpServer {
  readonly title: string;
  readonly url: string;
  /** The objects of the server. */
  readonly directory: string;
}

export function httpServers(): HttpServer[] {
  const directory = env["PGALLOC_HTTP_DATA"]!;
  const known = [
    ["HTTP", env["PGALLOC_HTTP_DIRECT"]],
    ["HTTP with faults", env["PGALLOC_HTTP_BAD"]],
  ] as const;
  return known.flatMap(([title, url]) => (url === undefined ? [] : [{ title, url, directory }]));
}

export function temporaryDirectory(): string {
  return mkdtempSync(join(tmpdir(), "pgalloc-servers-"));
}

export function removeTree(directory: string): void {
  rmSync(directory, { recursive: true });
}
