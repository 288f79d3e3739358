/**
 * How the kernel shares the processors between threads, as far as a thread without privileges can
 * change it.
 *
 * - Slice: how long an ordinary thread runs before the kernel considers another one, since Linux
 *   6.12. A thread that wakes up takes the processor at once from one whose slice is longer than
 *   its own. Each thread's share of the processor stays the same
 *   (https://lwn.net/Articles/969062/).
 * - Nice: a thread's share beside others that want the same processor. A thread may reduce its own
 *   share, and never raise it again.
 *
 * A new thread inherits both from its maker (sched(7)).
 */
import { enter } from "./calls.ts";
import { libc } from "./libc.ts";
import { addressOf } from "./memory.ts";

const ARM64 = process.arch === "arm64";
const SYS_SCHED_SETATTR = ARM64 ? 274 : 314;
const SYS_SCHED_GETATTR = ARM64 ? 275 : 315;

// struct sched_attr { u32 size, policy; u64 flags; s32 nice; u32 priority; u64 runtime, deadline,
// period; }
const ATTR_BYTES = 48;
const POLICY_AT = 4;
const FLAGS_AT = 8;
const NICE_AT = 16;
const RUNTIME_AT = 24;
const SCHED_OTHER = 0;
const SCHED_FLAG_KEEP_POLICY = 8n;

/**
 * One buffer for each thread, because each has its own instance of this module. It is written and
 * read within one call, and cannot move.
 */
const attributes = new DataView(new ArrayBuffer(ATTR_BYTES));

/** False if the kernel does not report them, or the thread is not an ordinary one. */
function readAttributes(): boolean {
  if (isRefusedByTest("sched_getattr")) return false;
  const failed =
    libc.syscall(SYS_SCHED_GETATTR, 0, addressOf(attributes), ATTR_BYTES, 0, 0, 0) !== 0;
  return !failed && attributes.getUint32(POLICY_AT, true) === SCHED_OTHER;
}

function isRefusedByTest(syscall: string): boolean {
  const fault = enter(syscall, -1, 0, 0);
  return fault !== undefined && "errno" in fault;
}

/** Sets the attributes that were read, with their changes. False if the kernel refused. */
function writeAttributes(): boolean {
  if (isRefusedByTest("sched_setattr")) return false;
  attributes.setBigUint64(FLAGS_AT, SCHED_FLAG_KEEP_POLICY, true);
  return libc.syscall(SYS_SCHED_SETATTR, 0, addressOf(attributes), 0, 0, 0, 0) === 0;
}

/** The calling thread's slice in nanoseconds; 0 if unknown. */
export function timeSliceNs(): number {
  return readAttributes() ? Number(attributes.getBigUint64(RUNTIME_AT, true)) : 0;
}

/**
 * Asks for time slices of `sliceNs` for the calling thread (the kernel allows 0.1 to 100 ms); 0 for
 * the system's own. A hint: an older kernel ignores it. Returns false if the kernel refused.
 */
export function hintTimeSlice(sliceNs: number): boolean {
  if (!readAttributes()) return false;
  attributes.setBigUint64(RUNTIME_AT, BigInt(sliceNs), true);
  return writeAttributes();
}

/**
 * Raises the calling thread's nice value to `nice`, 0 to 19, for the rest of its life: 10 is a
 * tenth of the processor beside a thread of 0. Returns false if the kernel refused.
 */
export function lowerPriority(nice: number): boolean {
  if (!readAttributes()) return false;
  if (attributes.getInt32(NICE_AT, true) >= nice) return true;
  attributes.setInt32(NICE_AT, nice, true);
  return writeAttributes();
}

/** The calling thread's nice value; 0 if the thread is not an ordinary one. */
export function niceOf(): number {
  return readAttributes() ? attributes.getInt32(NICE_AT, true) : 0;
}
