/** A Worker that attaches a file, writes to its first page and saves it. */
import {
  MemoryFile,
  type MemoryFileHandle,
  PAGE_SIZE,
  type S3Options,
} from "../../../src/index.ts";
import { terminateIdleThreads } from "../../../src/threads/idle.ts";

declare const self: {
  onmessage: (event: { data: SaveRequest }) => Promise<void>;
};

export interface SaveRequest {
  readonly handle: MemoryFileHandle;
  readonly where: string;
  readonly s3: S3Options;
  readonly byte: number;
}

self.onmessage = async ({ data: { handle, where, s3, byte } }) => {
  const file = MemoryFile.attach(handle);
  file.view({ start: 0, end: PAGE_SIZE }).fill(byte);
  const answer = await file.saveTo(where, { s3 }).then(
    () => "saved",
    (error: { code?: string }) => error.code ?? String(error),
  );
  await terminateIdleThreads();
  postMessage(answer);
};
