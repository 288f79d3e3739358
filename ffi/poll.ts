/**
 * poll(2), for a thread that only waits for file descriptors, and the eventfd that ends the wait.
 */
import { enter } from "./calls.ts";
import { checkInteger } from "./check.ts";
import { EINTR } from "./file.ts";
import { writeStream } from "./transfer.ts";
import { SyscallError } from "./errors.ts";
import { errno, libc } from "./libc.ts";
import { addressOf } from "./memory.ts";

export const POLLIN = 1;
export const POLLPRI = 2;
export const POLLERR = 8;
export const POLLNVAL = 32;

export interface PollEntry {
  readonly fd: number;
  /** POLLIN, POLLPRI. Errors are always reported. */
  readonly events: number;
}

// struct pollfd { int fd; short events; short revents; }
const POLLFD_BYTES = 8;

/**
 * poll(2): blocks this thread until an entry has an event or `timeoutMs` have passed. Returns the
 * events of each entry, all 0 after the timeout. After EINTR the wait begins again.
 *
 * @throws {SyscallError}
 */
export function waitForEvents(entries: readonly PollEntry[], timeoutMs: number): number[] {
  checkInteger("timeoutMs", timeoutMs, 0, 2 ** 31 - 1);
  const table = new DataView(new ArrayBuffer(POLLFD_BYTES * entries.length));
  for (const [i, { fd, events }] of entries.entries()) {
    checkInteger("fd", fd, 0, 2 ** 31 - 1);
    checkInteger("events", events, 0, 2 ** 15 - 1);
    table.setInt32(POLLFD_BYTES * i, fd, true);
    table.setInt16(POLLFD_BYTES * i + 4, events, true);
  }
  const fault = enter("poll", entries[0]?.fd ?? -1, 0, entries.length);
  if (fault !== undefined && "errno" in fault) throw new SyscallError("poll", fault.errno);
  while (libc.poll(table as never, entries.length, timeoutMs) === -1) {
    const error = errno();
    if (error !== EINTR) throw new SyscallError("poll", error);
  }
  return entries.map((_, i) => table.getInt16(POLLFD_BYTES * i + 6, true));
}

const one = new BigUint64Array(new ArrayBuffer(8));
one[0] = 1n;

/** Makes an eventfd readable. @throws {SyscallError} */
export function signalEventFd(fd: number): void {
  const result = writeStream(fd, addressOf(one), one.byteLength);
  if (result < 0) throw new SyscallError("write", -result);
}
