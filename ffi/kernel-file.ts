/**
 * Reads files of /proc, which the kernel makes while they are read. Loading node:fs would take
 * every thread 2 to 4 ms. These calls are neither counted nor made to fail (calls.ts), because they
 * are not files of the program.
 *
 * A thread that is terminated between `open` and `close` leaves the descriptor open. The two calls
 * are close together, and files that a thread reads often are read in another way.
 */
import { SyscallError } from "./errors.ts";
import { cString, EINTR, fileStatus, O_CLOEXEC, O_RDONLY } from "./file.ts";
import { errno, libc } from "./libc.ts";
import { addressOf } from "./memory.ts";

const FIRST_BYTES = 4096;
const MAPPINGS_DEFAULT = 65_530;

/**
 * The whole contents of such a file.
 * @throws {SyscallError} with `path`: ENOENT, or ESRCH if a thread has gone meanwhile
 * @internal
 */
export function readKernelFile(path: string): Buffer {
  const name = cString(path);
  let bytes = Buffer.from(new ArrayBuffer(FIRST_BYTES));
  for (let done = 0; ; ) {
    const moved = readPart(path, name, addressOf(bytes) + done, bytes.length - done, done);
    if (moved === 0) return bytes.subarray(0, done);
    done += moved;
    if (done === bytes.length) bytes = Buffer.concat([bytes, Buffer.from(new ArrayBuffer(done))]);
  }
}

/**
 * Reads from `offset` on, with a descriptor of its own. Returns the number of bytes; 0 at the end.
 */
function readPart(
  path: string,
  name: Buffer,
  address: number,
  lengthBytes: number,
  offset: number,
): number {
  for (;;) {
    const fd = libc.open(name as never, O_RDONLY | O_CLOEXEC, 0);
    const moved = fd === -1 ? -1 : libc.pread(fd, address, lengthBytes, offset);
    if (fd !== -1) libc.close(fd);
    if (moved !== -1) return Number(moved);
    const error = errno();
    if (error !== EINTR) throw new SyscallError(fd === -1 ? "open" : "pread", error, path);
  }
}

/**
 * How far ahead of reads and faults the kernel reads a file's device; 0 if it does not tell.
 * (/sys/class/bdi names the device by the numbers in st_dev, as makedev(3) packs them.)
 */
export function readAheadBytes(fd: number): number {
  const { device } = fileStatus(fd);
  const low = device % 2 ** 32;
  const high = Math.floor(device / 2 ** 32);
  const major = ((low >>> 8) & 0xfff) | (high & ~0xfff);
  const minor = (low & 0xff) | ((low >>> 12) & ~0xff);
  try {
    const path = `/sys/class/bdi/${major}:${minor}/read_ahead_kb`;
    return 1024 * (Number(readKernelFile(path).toString()) || 0);
  } catch (error) {
    if (error instanceof SyscallError) return 0;
    throw error;
  }
}

/** Mappings that the kernel allows a process: its default where it does not tell. */
export function mappingsMax(): number {
  try {
    return Number(readKernelFile("/proc/sys/vm/max_map_count").toString()) || MAPPINGS_DEFAULT;
  } catch (error) {
    if (error instanceof SyscallError) return MAPPINGS_DEFAULT;
    throw error;
  }
}
