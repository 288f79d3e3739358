/**
 * What every wrapped system call goes through: a count (tests assert how many calls a piece of work
 * makes) and a seam where a test can make a call fail or run short, as a disk or a kernel would.
 */

/** Calls made by this thread since its start, by name. Read-only for all but this folder. */
export const syscallCounts: Record<string, number> = Object.create(null) as Record<string, number>;

/**
 * What a fault does to one call: `errno` (positive) makes it fail with that number without being
 * made; `maxBytes` shortens a transfer; undefined lets it through.
 */
export type Fault = { errno: number } | { maxBytes: number } | undefined;
export type FaultHook = (syscall: string, fd: number, offset: number, lengthBytes: number) => Fault;

let faultHook: FaultHook | undefined;

/** For tests: sees every wrapped call of this thread before it is made. `undefined` removes it. */
export function setFaultHook(hook: FaultHook | undefined): void {
  faultHook = hook;
}

/** Counts a call and asks the hook. Returns the fault to apply. */
export function enter(syscall: string, fd: number, offset: number, lengthBytes: number): Fault {
  syscallCounts[syscall] = (syscallCounts[syscall] ?? 0) + 1;
  return faultHook === undefined ? undefined : faultHook(syscall, fd, offset, lengthBytes);
}
