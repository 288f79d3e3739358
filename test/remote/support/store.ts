/** A place in the S3 server of the tests, and checkpoints in it. */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { MemoryFile, PAGE_SIZE, type S3Options } from "../../../src/index.ts";
import { pattern } from "../../aio/support/memory.ts";
import { KEYS } from "../../http/support/clients.ts";
import type { S3Server } from "../../http/support/s3-server.ts";

export const PLACE = "s3://bucket/some/prefix";

export function s3Of(server: S3Server): S3Options {
  return { endpoint: server.endpoint, ...KEYS };
}

/** A file with so many pages of contents that cannot be compressed, by seed. */
export function filledFile(pages: number, seed = 1): MemoryFile {
  const file = MemoryFile.create();
  const range = file.allocate(pages * PAGE_SIZE);
  file.view(range).set(pattern(pages * PAGE_SIZE, seed));
  return file;
}

/** The newest checkpoint of the server as a directory. */
export function asDirectory(server: S3Server, prefix = "some/prefix/"): string {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-remote-"));
  const keys = [...server.objects.keys()].filter((key) => key.startsWith(prefix)).sort();
  const manifest = keys.find((key) => key.startsWith(`${prefix}manifest/`))!;
  writeFileSync(join(directory, "meta"), server.objects.get(manifest)!.bytes);
  for (const key of keys.filter((key) => key.startsWith(`${prefix}pages-`)))
    writeFileSync(join(directory, basename(key)), server.objects.get(key)!.bytes);
  return directory;
}

/** Names of what is in the place, without its prefix. */
export function namesIn(server: S3Server, prefix = "some/prefix/"): string[] {
  const keys = [...server.objects.keys()].filter((key) => key.startsWith(prefix));
  return keys.map((key) => key.slice(prefix.length)).sort();
}
