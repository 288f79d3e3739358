/** Opens the sink of a place: a directory, or a prefix of a bucket. */
import { isRemote, type PlaceOptions } from "../remote/place.ts";
import { DirectorySink } from "./directory-sink.ts";
import type { Sink } from "./sink.ts";

export interface SinkOptions extends PlaceOptions {
  /** True if the save can build on the checkpoint that is there. */
  readonly wantsBase: boolean;
}

/** @throws {CheckpointBusyError} {SyscallError} {RemoteError} @throws as `openPlace` */
export async function openSink(where: string, options: SinkOptions): Promise<Sink> {
  if (!isRemote(where)) return new DirectorySink(where);
  const { S3Sink } = await import("./s3-sink.ts");
  return await S3Sink.open(where, options);
}
