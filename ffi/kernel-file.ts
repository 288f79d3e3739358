/**
 * Files that the kernel makes up while they are read (/proc). By hand: loading node:fs takes every thread 2 to 4 ms. They are
 * no files of the program's, so their calls are neither counted nor made to fail (calls.ts).
 */
import { SyscallError } from "./errors.ts";
import { cString, EINTR, O_CLOEXEC, O_RDONLY } from "./file.ts";
import { errno, libc } from "./libc.ts";
import { addressOf } from "./memory.ts";

const FIRST_BYTES = 4096;

/** All that such a file says. @throws {SyscallError} with `path`: ENOENT, and ESRCH where a thread has gone meanwhile */
export function readKernelFile(path: string): Buffer {
  const name = cString(path);
  const fd = retry("open", path, () => libc.open(name as never, O_RDONLY | O_CLOEXEC, 0));
  try {
    let bytes = Buffer.from(new ArrayBuffer(FIRST_BYTES));
    for (let done = 0; ; ) {
      const moved = retry("read", path, () => Number(libc.read(fd, addressOf(bytes) + done, bytes.length - done)));
      if (moved === 0) return bytes.subarray(0, done);
      done += moved;
      if (done === bytes.length) bytes = Buffer.concat([bytes, Buffer.from(new ArrayBuffer(done))]);
    }
  } finally {
    libc.close(fd);
  }
}

function retry(syscall: string, path: string, call: () => number): number {
  for (;;) {
    const result = call();
    if (result !== -1) return result;
    const error = errno();
    if (error !== EINTR) throw new SyscallError(syscall, error, path);
  }
}
