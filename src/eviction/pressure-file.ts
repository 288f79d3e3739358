/**
 * The file through which the kernel reports memory pressure: pressure stall information (PSI) of
 * the process's own cgroup (version 2), or else of the whole machine. gVisor uses the older
 * notifications of the memory controller, which version 2 does not have.
 *
 * Writing "some <stall µs> <window µs>" to the file makes a trigger. It lives as long as the
 * descriptor, which then has POLLPRI at most once in each window. Without CAP_SYS_RESOURCE a window
 * must be a multiple of 2 s. Source: Documentation/accounting/psi.rst and kernel/sched/psi.c of
 * Linux.
 */
import { join, relative } from "node:path";
import {
  addressOf,
  closeFile,
  O_RDWR,
  openFile,
  readKernelFile,
  SyscallError,
  writeStream,
} from "../../ffi/index.ts";
import { PressureUnavailableError } from "../errors/errors.ts";

/** How much stalling is pressure. */
export interface PressureThreshold {
  /** Milliseconds, within a window, in which some task waited for memory. */
  readonly stallMs: number;
  /** 500 to 10,000; a multiple of 2,000 unless the process has CAP_SYS_RESOURCE. */
  readonly windowMs: number;
}

export const DEFAULT_THRESHOLD: PressureThreshold = { stallMs: 150, windowMs: 2000 };

const SYSTEM_PRESSURE = "/proc/pressure/memory";

export interface PressureTrigger {
  readonly fd: number;
  /** The file that reports pressure: a cgroup's or the machine's. */
  readonly path: string;
}

/** @throws {PressureUnavailableError} with the error of each file */
export function openPressureTrigger(
  threshold: PressureThreshold,
  paths: readonly string[],
): PressureTrigger {
  const failures: SyscallError[] = [];
  for (const path of paths) {
    try {
      return { fd: openTrigger(path, threshold), path };
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      failures.push(error);
    }
  }
  throw new PressureUnavailableError(failures);
}

function openTrigger(path: string, { stallMs, windowMs }: PressureThreshold): number {
  const fd = openFile(path, O_RDWR);
  // With a NUL, because the kernel cuts off the last byte that is written.
  const text = new TextEncoder().encode(`some ${stallMs * 1000} ${windowMs * 1000}\0`);
  const bytes = new Uint8Array(new ArrayBuffer(text.length));
  bytes.set(text);
  const result = writeStream(fd, addressOf(bytes), bytes.length);
  if (result >= 0) return fd;
  closeFile(fd);
  throw new SyscallError("write", -result, path);
}

/** The files to try, the process's own cgroup first. */
export function pressureFiles(): string[] {
  const own = cgroupPressureFile(
    `${readKernelFile("/proc/self/cgroup")}`,
    `${readKernelFile("/proc/self/mountinfo")}`,
  );
  return own === null ? [SYSTEM_PRESSURE] : [own, SYSTEM_PRESSURE];
}

/**
 * The pressure file of a process, from its /proc/self/cgroup and mountinfo. Null if it is in no
 * cgroup of version 2, or its cgroup is not within a mount of this process.
 */
export function cgroupPressureFile(cgroup: string, mountinfo: string): string | null {
  const path = /^0::(.*)$/m.exec(cgroup)?.[1];
  // A cgroup outside of the process's cgroup namespace is shown as "/../…". It has no path here.
  if (path === undefined || path.startsWith("/..")) return null;
  for (const line of mountinfo.split("\n")) {
    const [before, after] = line.split(" - ");
    if (after?.split(" ")[0] !== "cgroup2") continue;
    // ID, parent, device, root within the file system, mount point, …; spaces and some other
    // characters are octal escapes.
    const [root, mountPoint] = before!.split(" ").slice(3, 5).map(unescapeField);
    const inside = relative(root!, path);
    if (!inside.startsWith("..")) return join(mountPoint!, inside, "memory.pressure");
  }
  return null;
}

function unescapeField(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}
