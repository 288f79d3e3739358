/**
 * Makes a service thread look after the files that this thread shares (worker/serve-file.ts).
 *
 * One service thread serves a file (Word.Service). The thread that shares the file first asks its
 * own. Every thread that has the file checks from time to time that the service thread lives, and
 * asks its own otherwise. So a file is served as long as any of its threads returns to its event
 * loop once.
 */
import { Word } from "../control/control.ts";
import { ThreadLimitError, WorkerNotFoundError } from "../threads/errors.ts";
import { onReload } from "../threads/reload.ts";
import { runInService } from "../threads/service.ts";
import { isThreadAlive, THREAD_ID } from "../threads/thread.ts";
import type { FileCore } from "./core.ts";
import type { MemoryFileHandle } from "./options.ts";

const LOOK_MS = 500;

const handles = new Map<FileCore, MemoryFileHandle>();
let timer: ReturnType<typeof setInterval> | undefined;
/** True if the program has no entry file for Workers: its files have no service thread. */
let isUnavailable = false;

onReload(() => clearInterval(timer));

/** The file is shared, so a service thread now looks after it. */
export function keepServed(core: FileCore, handle: MemoryFileHandle): void {
  if (isUnavailable || handles.has(core)) return;
  handles.set(core, handle);
  timer ??= setInterval(look, LOOK_MS).unref();
  serve(core, handle, isThreadAlive);
}

function look(): void {
  // Most files have the same service thread, and a check takes 10 µs.
  const known = new Map<number, boolean>();
  const isAlive = (thread: number): boolean => {
    const answer = known.get(thread) ?? isThreadAlive(thread);
    known.set(thread, answer);
    return answer;
  };
  for (const [core, handle] of handles) {
    if (core.isDetached) handles.delete(core);
    else serve(core, handle, isAlive);
  }
  if (handles.size > 0) return;
  clearInterval(timer);
  timer = undefined;
}

function serve(
  core: FileCore,
  handle: MemoryFileHandle,
  isAlive: (thread: number) => boolean,
): void {
  const { words } = core;
  const server = Atomics.load(words, Word.Service);
  if (server !== 0 && isAlive(server)) return;
  if (Atomics.compareExchange(words, Word.Service, server, THREAD_ID) !== server) return;
  try {
    runInService("file.serve", handle).catch((error: unknown) => {
      if (error instanceof WorkerNotFoundError) isUnavailable = true;
      release(words);
    });
  } catch (error) {
    if (!(error instanceof ThreadLimitError)) throw error;
    // The next check tries again.
    release(words);
  }
}

/** This thread does not start a service thread. */
function release(words: Int32Array): void {
  Atomics.compareExchange(words, Word.Service, THREAD_ID, 0);
}
