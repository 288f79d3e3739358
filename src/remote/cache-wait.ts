/**
 * Waits for another load that fills the same cache, of this process or another one. So contents
 * cross the network once for all of them.
 */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { SyscallError } from "../../ffi/index.ts";
import { DirectoryLock } from "../checkpoint/directory-lock.ts";
import { absolutePath } from "../checkpoint/staging.ts";
import { CheckpointBusyError } from "../errors/errors.ts";
import { sleep } from "../http/client.ts";

const POLL_MS = 20;
/** Another load that writes nothing for this long may have been stopped. */
const STALL_MS = 2000;

/**
 * Resolves with true when no load fills the cache any more, and with false if the one that does
 * writes nothing.
 *
 * @throws the signal's reason
 */
export async function fillHasEnded(directory: string, signal?: AbortSignal): Promise<boolean> {
  const path = absolutePath(directory);
  let written = "";
  let sinceMs = performance.now();
  while (isLocked(path)) {
    const seen = contentsOf(path);
    if (seen !== written) {
      written = seen;
      sinceMs = performance.now();
    } else if (performance.now() - sinceMs > STALL_MS) return false;
    await sleep(POLL_MS, signal);
  }
  return true;
}

/** @throws {SyscallError} */
function isLocked(path: string): boolean {
  try {
    new DirectoryLock(path).close();
    return false;
  } catch (error) {
    if (error instanceof CheckpointBusyError) return true;
    // Removed meanwhile: the next fill makes it.
    if (error instanceof SyscallError && error.code === "ENOENT") return false;
    throw error;
  }
}

/** The names of the directory's files, and how many blocks of the disk each has. */
function contentsOf(path: string): string {
  const sizes = readdirSync(path).map((name) => {
    const { blocks = 0 } = statSync(join(path, name), { throwIfNoEntry: false }) ?? {};
    return `${name} ${blocks}`;
  });
  return sizes.join("\n");
}
