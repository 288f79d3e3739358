/**
 * The symbols of libc, opened by `dlopen`. Only this file and the wrappers beside it use `bun:ffi`.
 *
 * Every argument has its C declaration. Signed 64-bit results are `i64_fast`: they are numbers
 * while they are safe integers, which includes -1 and every address of user space (below 2^56).
 * bun:ffi does **not** check integer arguments (it accepts 1.5, NaN and 2^60), so the wrappers do.
 */
import { dlopen, FFIType as T, read } from "bun:ffi";
import { UnsupportedError } from "./errors.ts";

const symbols = {
  // void *mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
  mmap: { args: [T.u64, T.u64, T.i32, T.i32, T.i32, T.i64], returns: T.i64_fast },
  // int munmap(void *addr, size_t length)
  munmap: { args: [T.u64, T.u64], returns: T.i32 },
  // int madvise(void *addr, size_t length, int advice)
  madvise: { args: [T.u64, T.u64, T.i32], returns: T.i32 },
  // int msync(void *addr, size_t length, int flags)
  msync: { args: [T.u64, T.u64, T.i32], returns: T.i32 },
  // int mincore(void *addr, size_t length, unsigned char *vec)
  mincore: { args: [T.u64, T.u64, T.ptr], returns: T.i32 },
  // int memfd_create(const char *name, unsigned int flags)
  memfd_create: { args: [T.ptr, T.u32], returns: T.i32 },
  // int ftruncate(int fd, off_t length)
  ftruncate: { args: [T.i32, T.i64], returns: T.i32 },
  // int fallocate(int fd, int mode, off_t offset, off_t length)
  fallocate: { args: [T.i32, T.i32, T.i64, T.i64], returns: T.i32 },
  // int posix_fadvise(int fd, off_t offset, off_t length, int advice)   (returns the error number)
  posix_fadvise: { args: [T.i32, T.i64, T.i64, T.i32], returns: T.i32 },
  // int sync_file_range(int fd, off_t offset, off_t length, unsigned int flags)
  sync_file_range: { args: [T.i32, T.i64, T.i64, T.u32], returns: T.i32 },
  // off_t lseek(int fd, off_t offset, int whence)
  lseek: { args: [T.i32, T.i64, T.i32], returns: T.i64_fast },
  // int fstat(int fd, struct stat *statbuf)
  fstat: { args: [T.i32, T.ptr], returns: T.i32 },
  // int open(const char *path, int flags, mode_t mode)
  open: { args: [T.ptr, T.i32, T.u32], returns: T.i32 },
  // int openat(int dirfd, const char *path, int flags, mode_t mode)
  openat: { args: [T.i32, T.ptr, T.i32, T.u32], returns: T.i32 },
  // int mkdir(const char *path, mode_t mode)
  mkdir: { args: [T.ptr, T.u32], returns: T.i32 },
  // int renameat(int olddirfd, const char *oldpath, int newdirfd, const char *newpath)
  renameat: { args: [T.i32, T.ptr, T.i32, T.ptr], returns: T.i32 },
  // int unlinkat(int dirfd, const char *path, int flags)
  unlinkat: { args: [T.i32, T.ptr, T.i32], returns: T.i32 },
  // int flock(int fd, int operation)
  flock: { args: [T.i32, T.i32], returns: T.i32 },
  // int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
  fsetxattr: { args: [T.i32, T.ptr, T.u64, T.u64, T.i32], returns: T.i32 },
  // ssize_t fgetxattr(int fd, const char *name, void *value, size_t size)
  fgetxattr: { args: [T.i32, T.ptr, T.u64, T.u64], returns: T.i64_fast },
  // int close(int fd)
  close: { args: [T.i32], returns: T.i32 },
  // int fcntl(int fd, int cmd, long arg)
  fcntl: { args: [T.i32, T.i32, T.i64], returns: T.i32 },
  // ssize_t pread(int fd, void *buf, size_t count, off_t offset)
  pread: { args: [T.i32, T.u64, T.u64, T.i64], returns: T.i64_fast },
  // ssize_t pwrite(int fd, const void *buf, size_t count, off_t offset)
  pwrite: { args: [T.i32, T.u64, T.u64, T.i64], returns: T.i64_fast },
  // ssize_t preadv(int fd, const struct iovec *iov, int iovcnt, off_t offset)
  preadv: { args: [T.i32, T.u64, T.i32, T.i64], returns: T.i64_fast },
  // ssize_t pwritev(int fd, const struct iovec *iov, int iovcnt, off_t offset)
  pwritev: { args: [T.i32, T.u64, T.i32, T.i64], returns: T.i64_fast },
  // ssize_t read(int fd, void *buf, size_t count)
  read: { args: [T.i32, T.u64, T.u64], returns: T.i64_fast },
  // ssize_t write(int fd, const void *buf, size_t count)
  write: { args: [T.i32, T.u64, T.u64], returns: T.i64_fast },
  // int eventfd(unsigned int initval, int flags)
  eventfd: { args: [T.u32, T.i32], returns: T.i32 },
  // int poll(struct pollfd *fds, nfds_t nfds, int timeout)
  poll: { args: [T.ptr, T.u64, T.i32], returns: T.i32 },
  // long syscall(long number, ...) (here: up to six arguments, for calls that libc has no function
  // for)
  syscall: { args: [T.i64, T.u64, T.u64, T.u64, T.u64, T.u64, T.u64], returns: T.i64_fast },
  // int memcmp(const void *a, const void *b, size_t n)
  memcmp: { args: [T.u64, T.u64, T.u64], returns: T.i32 },
  // void *memcpy(void *dest, const void *src, size_t n)
  memcpy: { args: [T.u64, T.u64, T.u64], returns: T.i64_fast },
  // void *memset(void *s, int c, size_t n)
  memset: { args: [T.u64, T.i32, T.u64], returns: T.i64_fast },
  // long sysconf(int name)
  sysconf: { args: [T.i32], returns: T.i64_fast },
  // int *__errno_location(void)
  __errno_location: { args: [], returns: T.i64_fast },
} as const;

/** glibc's name first, then musl's for this architecture. */
const LIBRARY_NAMES = [
  "libc.so.6",
  `libc.musl-${process.arch === "arm64" ? "aarch64" : "x86_64"}.so.1`,
];

type Libc = ReturnType<typeof dlopen<typeof symbols>>["symbols"];

/**
 * The reason why this system has no usable C library, or undefined. The package can be imported in
 * both cases.
 */
let unusable: UnsupportedError | undefined;

function openLibc(): Libc {
  if (process.platform !== "linux")
    return refuse(`pgalloc needs Linux; this is ${process.platform}`, undefined);
  const failures: unknown[] = [];
  for (const name of LIBRARY_NAMES) {
    try {
      return dlopen(name, symbols).symbols;
    } catch (error) {
      failures.push(error);
    }
  }
  const message = `pgalloc finds no C library among ${LIBRARY_NAMES.join(", ")}`;
  return refuse(message, new AggregateError(failures, message));
}

/** A libc whose every call throws. */
function refuse(message: string, cause: unknown): Libc {
  unusable = new UnsupportedError(message, { cause });
  const throwing = (): never => {
    throw new UnsupportedError(message, { cause });
  };
  return Object.fromEntries(Object.keys(symbols).map((name) => [name, throwing])) as never;
}

/** @internal */
export const libc = openLibc();
/** False on systems other than Linux: importing works there, and calls throw. */
export const isUsable = unusable === undefined;

// Each thread has one errno and one instance of this module, so the address is a constant here.
const errnoAddress = (isUsable ? libc.__errno_location() : 0) as never;

/** The error number of the libc call that just failed on this thread. */
export function errno(): number {
  return read.i32(errnoAddress, 0);
}

const SC_PAGESIZE = 30;

/** The system's page size in bytes (4096 on x64; 4096, 16384 or 65536 on arm64). */
export const SYSTEM_PAGE_SIZE = isUsable ? Number(libc.sysconf(SC_PAGESIZE)) : 4096;
