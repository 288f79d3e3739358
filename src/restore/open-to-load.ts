/** Opens a remote checkpoint that is to be loaded. */
import { warmThreads } from "../load/warm-threads.ts";
import { openRemoteCheckpoint, type RemoteCheckpoint } from "../remote/open-checkpoint.ts";
import type { RemotePlace } from "../remote/place.ts";

/** Starts the threads of the load while the manifest is read. @throws as `openRemoteCheckpoint` */
export async function openToLoad(place: RemotePlace): Promise<RemoteCheckpoint> {
  const [checkpoint] = await Promise.all([
    openRemoteCheckpoint(place, { toLoad: true }),
    warmThreads(place.fileUrl("")),
  ]);
  return checkpoint;
}
