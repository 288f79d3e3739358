/**
 * Finds the written pages of a mapping: userfaultfd(2) with asynchronous write protection, and the
 * ioctl PAGEMAP_SCAN, which reports written pages and protects them again in one step (Linux 6.7).
 *
 * The next write to a protected page causes one fault, which the kernel resolves by itself: no
 * thread waits for a handler, and no privilege is needed (UFFD_USER_MODE_ONLY only restricts
 * handlers).
 *
 * Source: Documentation/admin-guide/mm/{userfaultfd,pagemap}.rst, linux/userfaultfd.h, linux/fs.h.
 */
import { checkInteger } from "./check.ts";
import { SyscallError } from "./errors.ts";
import { check, checkOn, closeFile, O_CLOEXEC } from "./file.ts";
import { libc, SYSTEM_PAGE_SIZE } from "./libc.ts";
import { addressOf, mapAnonymous, unmap } from "./memory.ts";
import { openPagemap } from "./pagemap.ts";

// <asm/unistd.h>: arm64 has the generic numbers.
const ARM64 = process.arch === "arm64";
const SYS_USERFAULTFD = ARM64 ? 282 : 323;
const SYS_IOCTL = ARM64 ? 29 : 16;

const UFFD_USER_MODE_ONLY = 1;
const UFFD_API = 0xaa;
// _IOWR(0xAA, n, size); UNREGISTER is _IOR.
const UFFDIO_API = 0xc018aa3f;
const UFFDIO_REGISTER = 0xc020aa00;
const UFFDIO_UNREGISTER = 0x8010aa01;
const UFFDIO_WRITEPROTECT = 0xc018aa06;
const REGISTER_MODE_WP = 2;
const WRITEPROTECT_MODE_WP = 1;

const FEATURE_PAGEFAULT_FLAG_WP = 1 << 0;
const FEATURE_WP_HUGETLBFS_SHMEM = 1 << 12;
const FEATURE_WP_UNPOPULATED = 1 << 13;
const FEATURE_WP_ASYNC = 1 << 15;
const FEATURES =
  FEATURE_PAGEFAULT_FLAG_WP |
  FEATURE_WP_HUGETLBFS_SHMEM |
  FEATURE_WP_UNPOPULATED |
  FEATURE_WP_ASYNC;

// _IOWR('f', 16, struct pm_scan_arg)
const PAGEMAP_SCAN = 0xc0606610;
const PM_SCAN_WP_MATCHING = 1;
const PM_SCAN_CHECK_WPASYNC = 2;
const PAGE_IS_WRITTEN = 2;
const PAGE_IS_HUGE = 64;

/** Regions that one scan reports. The next scan continues where it stopped. */
const REGIONS = 4096;
// struct page_region { __u64 start, end, categories; }
const REGION_WORDS = 3;
// struct pm_scan_arg: twelve __u64, named by index.
const Arg = {
  Size: 0,
  Flags: 1,
  Start: 2,
  End: 3,
  WalkEnd: 4,
  Vec: 5,
  VecLength: 6,
  Mask: 9,
  ReturnMask: 11,
} as const;
const ARG_WORDS = 12;

// Buffers of their own, which the collector never moves. A number below 2^53 is stored as two
// halves, because a BigInt would be an allocation for each region.
const ioctlWords = new Uint32Array(new ArrayBuffer(8 * 4));
const ioctlAddress = addressOf(ioctlWords);
let scanWords: { arg: Uint32Array; argAddress: number; regions: Uint32Array } | undefined;

function store(words: Uint32Array, index: number, value: number): void {
  words[2 * index] = value % 2 ** 32;
  words[2 * index + 1] = Math.floor(value / 2 ** 32);
}

function read(words: Uint32Array, index: number): number {
  return words[2 * index]! + words[2 * index + 1]! * 2 ** 32;
}

function ioctl(name: string, fd: number, request: number, address: number): number {
  return checkOn(name, fd, undefined, () =>
    Number(libc.syscall(SYS_IOCTL, fd, request, address, 0, 0, 0)),
  );
}

/** The reason why written pages cannot be tracked. */
export interface TrackingUnavailable {
  /**
   * The system call that was refused, and its error code: "ENOSYS", "EPERM", "EINVAL", "ENOTTY".
   */
  readonly syscall: string;
  readonly code: string;
  /** The reason in words. */
  readonly reason: string;
}

/**
 * The reason why this process cannot track written pages; null if it can. Each thread asks the
 * kernel once.
 */
export function trackingUnavailable(): TrackingUnavailable | null {
  unavailable ??= { reason: probe() };
  return unavailable.reason;
}
let unavailable: { reason: TrackingUnavailable | null } | undefined;

/** For tests: the next `trackingUnavailable` asks the kernel again, or returns `reason`. */
export function resetTrackingProbe(reason?: TrackingUnavailable): void {
  unavailable = reason === undefined ? undefined : { reason };
}

function probe(): TrackingUnavailable | null {
  const address = mapAnonymous(SYSTEM_PAGE_SIZE);
  let fd = -1;
  let pagemap = -1;
  try {
    fd = openUserfaultfd();
    pagemap = openPagemap();
    registerWrites(fd, address, SYSTEM_PAGE_SIZE);
    let seen = 0;
    const count = (start: number, end: number) => {
      seen += end - start;
    };
    scanWritten(pagemap, address, address + SYSTEM_PAGE_SIZE, count);
    if (seen === SYSTEM_PAGE_SIZE) return null;
    return { syscall: "PAGEMAP_SCAN", code: "ENOTSUP", reason: FORGETS };
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    return { syscall: error.syscall, code: error.code, reason: reasonOf(error) };
  } finally {
    if (fd !== -1) closeFile(fd);
    if (pagemap !== -1) closeFile(pagemap);
    unmap(address, SYSTEM_PAGE_SIZE);
  }
}

const FORGETS = "the kernel does not report pages that it has unmapped as written";

function reasonOf({ code, syscall, message }: SyscallError): string {
  if (syscall === "userfaultfd" && (code === "EPERM" || code === "ENOSYS"))
    return `userfaultfd is missing, or a container's seccomp filter forbids it (${code})`;
  if (syscall === "UFFDIO_API" && code === "EINVAL")
    return "the kernel cannot track writes asynchronously; Linux 6.7 can (EINVAL)";
  if (syscall === "PAGEMAP_SCAN" && (code === "ENOTTY" || code === "EINVAL"))
    return `the kernel has no PAGEMAP_SCAN; Linux 6.7 has (${code})`;
  return message;
}

/**
 * A descriptor for asynchronous write tracking. @throws {SyscallError} EPERM, ENOSYS; EINVAL before
 * Linux 6.7
 */
export function openUserfaultfd(): number {
  const fd = check("userfaultfd", -1, undefined, () =>
    Number(libc.syscall(SYS_USERFAULTFD, O_CLOEXEC | UFFD_USER_MODE_ONLY, 0, 0, 0, 0, 0)),
  );
  try {
    // struct uffdio_api { __u64 api, features, ioctls; }
    store(ioctlWords, 0, UFFD_API);
    store(ioctlWords, 1, FEATURES);
    store(ioctlWords, 2, 0);
    ioctl("UFFDIO_API", fd, UFFDIO_API, ioctlAddress);
    return fd;
  } catch (error) {
    closeFile(fd);
    throw error;
  }
}

/**
 * Tracks a range of mapped memory. Its pages count as written until the first scan protects them.
 * @throws {SyscallError} EBUSY if another descriptor tracks it
 */
export function registerWrites(fd: number, address: number, lengthBytes: number): void {
  storeRange(address, lengthBytes);
  store(ioctlWords, 2, REGISTER_MODE_WP);
  store(ioctlWords, 3, 0);
  ioctl("UFFDIO_REGISTER", fd, UFFDIO_REGISTER, ioctlAddress);
}

/** Stops tracking the range. @throws {SyscallError} */
export function unregisterWrites(fd: number, address: number, lengthBytes: number): void {
  storeRange(address, lengthBytes);
  ioctl("UFFDIO_UNREGISTER", fd, UFFDIO_UNREGISTER, ioctlAddress);
}

/**
 * Protects a registered range page by page. The kernel then maps its huge pages as small pages.
 * @throws {SyscallError}
 */
export function protectWrites(fd: number, address: number, lengthBytes: number): void {
  storeRange(address, lengthBytes);
  store(ioctlWords, 2, WRITEPROTECT_MODE_WP);
  ioctl("UFFDIO_WRITEPROTECT", fd, UFFDIO_WRITEPROTECT, ioctlAddress);
}

function storeRange(address: number, lengthBytes: number): void {
  checkInteger("address", address, 1);
  checkInteger("lengthBytes", lengthBytes, 1);
  store(ioctlWords, 0, address);
  store(ioctlWords, 1, lengthBytes);
}

/**
 * Calls `visit` with each run of addresses in [start, end) whose pages were written since they were
 * last protected. It protects them first. A page that the kernel has unmapped (reclaimed, or part
 * of a huge page in which a hole was punched) counts as written, because its protection is lost.
 *
 * @throws {SyscallError} EPERM if a part of the range is not registered
 */
export function scanWritten(
  pagemapFd: number,
  start: number,
  end: number,
  visit: (start: number, end: number) => void,
): void {
  checkInteger("start", start, 1);
  checkInteger("end", end, start);
  scanWords ??= makeScanWords();
  const { arg, argAddress, regions } = scanWords;
  for (let from = start; from < end; from = read(arg, Arg.WalkEnd)) {
    arg.fill(0);
    store(arg, Arg.Size, 8 * ARG_WORDS);
    store(arg, Arg.Flags, PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC);
    store(arg, Arg.Start, from);
    store(arg, Arg.End, end);
    store(arg, Arg.Vec, addressOf(regions));
    store(arg, Arg.VecLength, REGIONS);
    store(arg, Arg.Mask, PAGE_IS_WRITTEN);
    store(arg, Arg.ReturnMask, PAGE_IS_WRITTEN);
    const count = ioctl("PAGEMAP_SCAN", pagemapFd, PAGEMAP_SCAN, argAddress);
    for (let i = 0; i < count; i++)
      visit(read(regions, REGION_WORDS * i), read(regions, REGION_WORDS * i + 1));
  }
}

/** True if the kernel maps the address as part of a huge page. */
export function isMappedHuge(pagemapFd: number, address: number): boolean {
  scanWords ??= makeScanWords();
  const { arg, argAddress, regions } = scanWords;
  arg.fill(0);
  store(arg, Arg.Size, 8 * ARG_WORDS);
  store(arg, Arg.Start, address);
  store(arg, Arg.End, address + SYSTEM_PAGE_SIZE);
  store(arg, Arg.Vec, addressOf(regions));
  store(arg, Arg.VecLength, 1);
  store(arg, Arg.Mask, PAGE_IS_HUGE);
  store(arg, Arg.ReturnMask, PAGE_IS_HUGE);
  return ioctl("PAGEMAP_SCAN", pagemapFd, PAGEMAP_SCAN, argAddress) > 0;
}

function makeScanWords() {
  const arg = new Uint32Array(new ArrayBuffer(8 * ARG_WORDS));
  const regions = new Uint32Array(new ArrayBuffer(8 * REGION_WORDS * REGIONS));
  return { arg, argAddress: addressOf(arg), regions };
}
