/**
 * Imports of modules on first use. They need descriptors, and the engine never reads a module again
 * that it once failed to read: so it is asked only while there are enough.
 */
import { closeFile, createEventFd, errnoNumber, isRefused, SyscallError } from "../../ffi/index.ts";

/** More than the engine opens at once for a module and those that it imports. */
const DESCRIPTORS = 12;

/**
 * Returns a function that imports a module.
 *
 * It throws a SyscallError, EMFILE for example, if there are too few descriptors; a later call
 * tries again.
 */
export function onUse<T>(load: () => Promise<T>): () => Promise<T> {
  let loaded: T | undefined;
  return async () => {
    if (loaded !== undefined) return loaded;
    requireDescriptors();
    try {
      loaded = await load();
    } catch (cause) {
      throw systemErrorOf(cause) ?? cause;
    }
    return loaded;
  };
}

/** @throws {SyscallError} */
function requireDescriptors(): void {
  const opened: number[] = [];
  try {
    for (let i = 0; i < DESCRIPTORS; i++) opened.push(createEventFd());
  } catch (error) {
    // A sandbox may refuse the call: then the engine tries.
    if (!(error instanceof SyscallError && isRefused(error))) throw error;
  } finally {
    for (const fd of opened) closeFile(fd);
  }
}

/** The engine's error for a module that cannot be opened has no code; its text names the cause. */
export function systemErrorOf(cause: unknown): SyscallError | undefined {
  const { message, code } = cause as { message?: unknown; code?: unknown };
  const found = /\b(EMFILE|ENFILE|ENOMEM)\b(?:.*"(.*)")?/.exec(String(message));
  if (found === null || code !== undefined) return undefined;
  const error = new SyscallError("open", errnoNumber(found[1]!), found[2]);
  error.cause = cause;
  return error;
}
