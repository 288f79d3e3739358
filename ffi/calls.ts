/**
 * Every wrapped system call passes through here. It is counted, because tests assert how many calls
 * some work makes. A test can make it fail or fall short, as a disk or a kernel would.
 */

/** Calls that this thread has made since its start, by name. Only this folder writes it. */
export const syscallCounts: Record<string, number> = Object.create(null) as Record<string, number>;

/**
 * A fault of one call: `errno` (positive) makes it fail with that number without being made;
 * `maxBytes` shortens a transfer; undefined lets it pass.
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
