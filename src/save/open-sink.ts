/** Opens the sink of a place: a directory, or a prefix of a bucket. */
import { onUse } from "../errors/lazy-import.ts";
import { isRemote } from "../remote/place.ts";
import { DirectorySink } from "./directory-sink.ts";
import type { Sink, SinkOptions } from "./sink.ts";

const importS3Sink = onUse(() => import("./s3-sink.ts"));

/**
 * @throws {CheckpointBusyError} {CheckpointConflictError} {SyscallError} {RemoteError}
 * @throws as `openPlace`
 */
export async function openSink(where: string, options: SinkOptions): Promise<Sink> {
  if (!isRemote(where)) return new DirectorySink(where, options);
  const { S3Sink } = await importS3Sink();
  return await S3Sink.open(where, options);
}
