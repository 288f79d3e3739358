/** Starts Workers: where their entry file is, and what to do if no thread can be made. */
import { hintTimeSlice, timeSliceNs } from "../../ffi/index.ts";
import { ThreadLimitError } from "./errors.ts";

/** A Worker takes 10 ms of a processor to start. Threads that wake up meanwhile go first. */
const START_SLICE_NS = 10_000_000;

/**
 * Starts a Worker without holding up other threads. A thread begins with the time slice of the
 * thread that made it; its entry file gives it the system's own once it has started.
 *
 * @throws {ThreadLimitError} if the system has no more threads
 */
export function startWorker(url: URL): Worker {
  const own = timeSliceNs();
  hintTimeSlice(START_SLICE_NS);
  try {
    return new Worker(url);
  } catch (error) {
    if (error instanceof TypeError && error.message.includes("spawn")) {
      throw new ThreadLimitError(error);
    }
    throw error;
  } finally {
    hintTimeSlice(own);
  }
}

/**
 * The entry file is worker/pgalloc-worker.ts; in a program that was built, a file beside the
 * program's own. There `import.meta.url` may be that of the source on the machine that built it,
 * because CommonJS has nothing else.
 */
function workerUrl(): URL {
  const built = new URL("pgalloc-worker.js", Bun.pathToFileURL(Bun.main));
  // The files that an executable embeds cannot be looked at.
  if (Bun.main.startsWith("/$bunfs/") || Bun.file(built).size > 0) return built;
  return new URL(
    `../worker/pgalloc-worker.${import.meta.url.endsWith(".ts") ? "ts" : "js"}`,
    import.meta.url,
  );
}

export const WORKER_URL = workerUrl();
