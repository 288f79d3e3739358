/**
 * The file that holds a MemoryFile's memory: anonymous, or on a disk.
 *
 * A file on disk is locked while its MemoryFile lives (flock(2): the lock ends with the
 * descriptor), and marked with an extended attribute. So the library never empties memory that
 * another MemoryFile uses, in this process or another one, and never overwrites a file that it did
 * not make.
 */
import {
  closeFile,
  createMemoryFd,
  fileStatus,
  isMarked,
  markFile,
  O_CREAT,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_RDWR,
  openFile,
  sealAgainstShrinking,
  truncateFile,
} from "../../ffi/index.ts";
import { tryLock } from "../control/file-lock.ts";
import { NotMemoryError, PathInUseError } from "../errors/memory.ts";

const MARK = "user.pgalloc.memory";

/** Memory without a path: no other process can shorten it. @throws {SyscallError} */
export function openAnonymous(name: string): number {
  const fd = createMemoryFd(name);
  try {
    sealAgainstShrinking(fd);
    return fd;
  } catch (error) {
    closeFile(fd);
    throw error;
  }
}

/**
 * Opens a file on disk, empty and locked.
 *
 * @throws {PathInUseError} {NotMemoryError} {SyscallError} with the file unchanged
 */
export function openOnDisk(path: string, mode: number): number {
  // Without O_NONBLOCK, opening a FIFO would wait for a writer.
  const fd = openFile(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, mode);
  try {
    if (!tryLock(fd)) throw new PathInUseError(path);
    const { sizeBytes, isFile } = fileStatus(fd);
    if (!isFile || (sizeBytes > 0 && !isMarked(fd, MARK))) throw new NotMemoryError(path);
    // A file without the attribute cannot be used again once it is not empty.
    markFile(fd, MARK);
    truncateFile(fd, 0);
    return fd;
  } catch (error) {
    closeFile(fd);
    throw error;
  }
}
