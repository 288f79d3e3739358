/**
 * Starts Workers: finds their entry file, and fails with ThreadLimitError if no thread can be made.
 */
import {
  closeFile,
  createEventFd,
  hintTimeSlice,
  isRefused,
  SyscallError,
  timeSliceNs,
} from "../../ffi/index.ts";
import { ThreadLimitError } from "./errors.ts";

/** Starting a Worker takes 10 ms of a processor. Threads that wake up meanwhile run first. */
const START_SLICE_NS = 10_000_000;

/** At least as many as a Worker opens while it starts. If it cannot, Bun ends the whole process. */
const WORKER_DESCRIPTORS = 10;
/** More than the calls of the library open while a Worker starts. */
const OTHER_DESCRIPTORS = 16;
/** Workers of this thread that may still have to open theirs. */
let starting = 0;

/** @throws {ThreadLimitError} if another Worker may not find its descriptors */
function requireDescriptors(): void {
  const opened: number[] = [];
  try {
    const wanted = WORKER_DESCRIPTORS * (starting + 1) + OTHER_DESCRIPTORS;
    for (let i = 0; i < wanted; i++) opened.push(createEventFd());
  } catch (error) {
    // A sandbox may refuse the call: then the Worker tries.
    if (!(error instanceof SyscallError && isRefused(error))) throw new ThreadLimitError(error);
  } finally {
    for (const fd of opened) closeFile(fd);
  }
}

/** Counts the Worker as starting until it runs, or has failed to. */
function countStart(worker: Worker): void {
  const controller = new AbortController();
  const { signal } = controller;
  const end = () => {
    starting--;
    controller.abort();
  };
  starting++;
  for (const event of ["open", "close"]) worker.addEventListener(event, end, { signal });
}

/**
 * Starts a Worker without delaying other threads. A new thread inherits the time slice of the
 * thread that made it; the Worker's entry file restores the system's own once it has started.
 *
 * @throws {ThreadLimitError} if the system has no more threads or descriptors
 */
export function startWorker(url: URL): Worker {
  requireDescriptors();
  const own = timeSliceNs();
  hintTimeSlice(START_SLICE_NS);
  try {
    const worker = new Worker(url);
    countStart(worker);
    return worker;
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
 * The entry file is worker/pgalloc-worker.ts. In a bundled program it is a file beside the
 * program's own file: there `import.meta.url` may be that of the source on the machine that bundled
 * it, because CommonJS has no other.
 */
function workerUrl(): URL {
  const built = new URL("pgalloc-worker.js", Bun.pathToFileURL(Bun.main));
  // The size of a file embedded in an executable cannot be read.
  if (Bun.main.startsWith("/$bunfs/") || Bun.file(built).size > 0) return built;
  return new URL(
    `../worker/pgalloc-worker.${import.meta.url.endsWith(".ts") ? "ts" : "js"}`,
    import.meta.url,
  );
}

export const WORKER_URL = workerUrl();
