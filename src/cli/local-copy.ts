/**
 * Makes a checkpoint of a remote place a directory of this machine, for commands that read files.
 * The directory is removed at the end.
 */
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pageFileName, TRAILER_BYTES } from "../checkpoint/page-file.ts";
import type { S3Options } from "../http/s3-options.ts";
import { openCopySource } from "../remote/copy-source.ts";
import { copyCheckpoint } from "../remote/copy.ts";
import { isRemote, resolvePlace } from "../remote/place.ts";
import { TerminalProgress } from "./remote-arguments.ts";

export interface LocalCopyOptions {
  readonly s3: S3Options;
  /** If false, page files have their size and trailer, and holes instead of contents. */
  readonly contents: boolean;
}

/**
 * Calls `use` with the directory itself, or with a copy of the checkpoint at a URL. @throws as
 * `copyCheckpoint`
 */
export async function withLocalCopy<Result>(
  where: string,
  options: LocalCopyOptions,
  use: (directory: string) => Result,
): Promise<Result> {
  if (!isRemote(where)) return use(resolvePlace(where));
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-copy-"));
  try {
    if (options.contents) await copyAll(where, directory, options.s3);
    else await copyMetadata(where, directory, options.s3);
    return use(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

async function copyAll(where: string, directory: string, s3: S3Options): Promise<void> {
  using progress = new TerminalProgress();
  await copyCheckpoint(where, directory, {
    s3,
    onProgress: ({ copiedBytes, totalBytes }) => progress.transfer(copiedBytes, totalBytes),
  });
}

async function copyMetadata(where: string, directory: string, s3: S3Options): Promise<void> {
  const source = await openCopySource(where, { s3 });
  try {
    writeFileSync(join(directory, "meta"), source.manifest);
    for (const { id, sizeBytes, read } of source.pageFiles) {
      const fd = openSync(join(directory, pageFileName(id)), "w");
      try {
        writeSync(fd, await read(sizeBytes, TRAILER_BYTES), 0, TRAILER_BYTES, sizeBytes);
      } finally {
        closeSync(fd);
      }
    }
  } finally {
    source.close();
  }
}
