/**
 * io_uring(7) without liburing: typed arrays over the two rings that the process shares with the
 * kernel.
 *
 * The set-up, entry and register calls are numbers 425, 426 and 427 on both x64 and arm64 (all
 * calls since Linux 5.1 have one number everywhere: asm-generic/unistd.h). Offsets below are those
 * of io_uring.h, the same on both.
 *
 * One thread owns a ring. It writes submission entry i, then stores the tail, then calls `enter`.
 * It reads completions between its own head and the kernel's tail, and stores the head afterwards.
 */
import { enter as countCall } from "./calls.ts";
import { checkInteger } from "./check.ts";
import { SyscallError } from "./errors.ts";
import { closeFile } from "./file.ts";
import { errno, libc } from "./libc.ts";
import { addressOf, bufferAt, detach, mapRing, unmap } from "./memory.ts";

const SYS_IO_URING_SETUP = 425;
const SYS_IO_URING_ENTER = 426;
const SYS_IO_URING_REGISTER = 427;

const IORING_OFF_SQES = 0x10000000;
const IORING_FEAT_SINGLE_MMAP = 1 << 0;
const IORING_FEAT_NODROP = 1 << 1;
const IORING_ENTER_GETEVENTS = 1;
const IORING_REGISTER_EVENTFD = 4;
const IORING_REGISTER_PROBE = 8;
const IO_URING_OP_SUPPORTED = 1;
const SQE_WORDS = 16;
const CQE_WORDS = 4;

/** Operation codes (enum io_uring_op). */
export const UringOp = {
  Readv: 1,
  Writev: 2,
  AsyncCancel: 14,
  Read: 22,
  Write: 23,
} as const;

/** A kernel thread does the work from the start, so the submitter never blocks. */
export const IOSQE_ASYNC = 1 << 4;

const EINTR = 4;
const EAGAIN = 11;
const EBUSY = 16;
/** Attempts, one each millisecond, to get memory that no completion of this ring will free. */
const MEMORY_ATTEMPTS = 100;
const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;

/**
 * The reason why io_uring cannot be used, in words; null if it can. Each thread asks the kernel
 * once.
 */
export function uringUnavailable(): string | null {
  unavailable ??= { reason: probe() };
  return unavailable.reason;
}
let unavailable: { reason: string | null } | undefined;

function probe(): string | null {
  let ring: Uring;
  try {
    ring = new Uring(4);
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    if (error.code === "ENOSYS")
      return "the kernel has no io_uring, or a container's seccomp filter hides it (ENOSYS)";
    if (error.code === "EPERM")
      return (
        "io_uring is forbidden: by a container's seccomp filter or kernel.io_uring_disabled " +
        "(EPERM)"
      );
    return error.message;
  }
  try {
    return ring.missing;
  } finally {
    ring.close();
  }
}

/**
 * The addresses of a ring in this process. With them another thread can close the ring of a dead
 * one.
 */
export interface RingPlace {
  readonly fd: number;
  readonly ringAddress: number;
  readonly ringBytes: number;
  readonly entryAddress: number;
  readonly entryBytes: number;
  /**
   * Indexes of the ring's 32-bit words: entries that the kernel has taken, and completions that it
   * has written.
   */
  readonly submissionHead: number;
  readonly completionTail: number;
}

export class Uring {
  readonly fd: number;
  /** Entries of the submission ring, at least as many as requested. */
  readonly entries: number;
  private readonly ringAddress: number;
  private readonly ringBytes: number;
  private readonly entryAddress: number;
  private readonly ringBuffer: ArrayBuffer;
  private readonly entryBuffer: ArrayBuffer;
  private readonly words: Int32Array;
  private readonly sqes: Int32Array;
  /** Indexes into `words`. */
  private readonly submissionHead: number;
  private readonly submissionTail: number;
  private readonly completionHead: number;
  private readonly completionTail: number;
  private readonly completions: number;
  private readonly submissionMask: number;
  private readonly completionMask: number;
  private readonly features: number;
  private tail: number;
  /** Entries that were written and that the kernel has not taken yet. */
  private unsubmitted = 0;
  /** Entries that the kernel has taken and whose completions have not been reaped. */
  private inFlight = 0;

  /** @throws {SyscallError} ENOSYS or EPERM if it is forbidden */
  constructor(entries: number) {
    checkInteger("entries", entries, 1, 32768);
    // struct io_uring_params: 10 words, then struct io_sqring_offsets and struct io_cqring_offsets
    // of 10 words each.
    const params = new Uint32Array(new ArrayBuffer(120));
    this.fd = call("io_uring_setup", SYS_IO_URING_SETUP, entries, addressOf(params), 0, 0, -1);
    this.entries = params[0]!;
    this.features = params[5]!;
    this.ringBytes = Math.max(
      params[16]! + 4 * this.entries,
      params[25]! + 4 * CQE_WORDS * params[1]!,
    );
    let mapped = 0;
    try {
      if ((this.features & IORING_FEAT_SINGLE_MMAP) === 0)
        throw new SyscallError("io_uring_setup", 38, undefined, "before Linux 5.4");
      mapped = this.ringAddress = mapRing(this.ringBytes, this.fd, 0);
      this.entryAddress = mapRing(4 * SQE_WORDS * this.entries, this.fd, IORING_OFF_SQES);
    } catch (error) {
      if (mapped !== 0) unmap(mapped, this.ringBytes);
      closeFile(this.fd);
      throw error;
    }
    this.ringBuffer = bufferAt(this.ringAddress, this.ringBytes);
    this.entryBuffer = bufferAt(this.entryAddress, 4 * SQE_WORDS * this.entries);
    this.words = new Int32Array(this.ringBuffer, 0, this.ringBytes >>> 2);
    this.sqes = new Int32Array(this.entryBuffer);
    this.submissionHead = params[10]! >>> 2;
    this.submissionTail = params[11]! >>> 2;
    this.submissionMask = this.words[params[12]! >>> 2]!;
    this.completionHead = params[20]! >>> 2;
    this.completionTail = params[21]! >>> 2;
    this.completionMask = this.words[params[22]! >>> 2]!;
    this.completions = params[25]! >>> 2;
    // The array from places of the ring to entries. Place i always has entry i.
    for (let i = 0; i < this.entries; i++) this.words[(params[16]! >>> 2) + i] = i;
    this.tail = Atomics.load(this.words, this.submissionTail);
  }

  /** The operations that this library needs and this kernel's io_uring lacks, or null. */
  get missing(): string | null {
    if ((this.features & IORING_FEAT_NODROP) === 0)
      return "the kernel's io_uring may drop completions (before Linux 5.5)";
    // struct io_uring_probe: a header of 16 bytes, then 8 bytes an operation.
    const probe = new Uint8Array(new ArrayBuffer(16 + 8 * 256));
    try {
      call(
        "io_uring_register",
        SYS_IO_URING_REGISTER,
        this.fd,
        IORING_REGISTER_PROBE,
        addressOf(probe),
        256,
        this.fd,
      );
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      return `the kernel's io_uring does not say what it can do: ${error.message}`;
    }
    const missing = Object.entries(UringOp).filter(
      ([, op]) => (probe[16 + 8 * op + 2]! & IO_URING_OP_SUPPORTED) === 0,
    );
    return missing.length === 0
      ? null
      : `the kernel's io_uring lacks ${missing.map(([name]) => name).join(", ")}`;
  }

  /** Entries that can still be written before the next `enter`. */
  get room(): number {
    return this.entries - ((this.tail - Atomics.load(this.words, this.submissionHead)) >>> 0);
  }

  /**
   * Writes a submission entry; the kernel sees it at the next `enter`. Its completion has the same
   * `tag`, 32 bits. AsyncCancel's address is the tag to cancel. Precondition: `room` > 0.
   */
  push(
    op: number,
    flags: number,
    fd: number,
    address: number,
    length: number,
    offset: number,
    tag: number,
  ): void {
    const { sqes } = this;
    const at = (this.tail & this.submissionMask) * SQE_WORDS;
    sqes[at] = op | (flags << 8);
    sqes[at + 1] = fd;
    sqes[at + 2] = offset;
    sqes[at + 3] = offset / 2 ** 32;
    sqes[at + 4] = address;
    sqes[at + 5] = address / 2 ** 32;
    sqes[at + 6] = length;
    sqes[at + 7] = 0;
    sqes[at + 8] = tag;
    sqes.fill(0, at + 9, at + SQE_WORDS);
    this.tail = (this.tail + 1) | 0;
    this.unsubmitted++;
  }

  /**
   * Submits the pushed entries, and blocks until the ring has at least `minCompletions`
   * completions. It may return early if the kernel has no memory for requests and others are in
   * flight: reap, and call it again.
   */
  enter(minCompletions: number): void {
    Atomics.store(this.words, this.submissionTail, this.tail);
    for (let attempt = 0; this.unsubmitted > 0 || this.ready < minCompletions; ) {
      const error = this.enterOnce(this.unsubmitted, minCompletions);
      if (error === 0 || error === EINTR) continue;
      // No memory for requests (EAGAIN), or completions must be reaped first (EBUSY). Completions
      // make room.
      if (error !== EAGAIN && error !== EBUSY) throw new SyscallError("io_uring_enter", error);
      if (this.inFlight > 0) {
        if (minCompletions > 0 && this.ready === 0) this.enterOnce(0, 1);
        return;
      }
      if (++attempt === MEMORY_ATTEMPTS) throw new SyscallError("io_uring_enter", error);
      Bun.sleepSync(1);
    }
  }

  /** Returns 0 or the error number. */
  private enterOnce(submissions: number, minCompletions: number): number {
    const fault = countCall("io_uring_enter", this.fd, 0, submissions);
    if (fault !== undefined && "errno" in fault) return fault.errno;
    const flags = minCompletions > 0 ? IORING_ENTER_GETEVENTS : 0;
    const taken = Number(
      libc.syscall(SYS_IO_URING_ENTER, this.fd, submissions, minCompletions, flags, 0, 0),
    );
    if (taken < 0) return errno();
    this.unsubmitted -= taken;
    this.inFlight += taken;
    return 0;
  }

  /** Removes the entries pushed since the last `enter`. */
  discard(): void {
    this.tail = (this.tail - this.unsubmitted) | 0;
    this.unsubmitted = 0;
  }

  /** Entries whose completions have not been reaped. */
  get pending(): number {
    return this.unsubmitted + this.inFlight;
  }

  /** Completions in the ring. */
  get ready(): number {
    return (Atomics.load(this.words, this.completionTail) - this.words[this.completionHead]!) >>> 0;
  }

  /** Takes every completion in the ring: its tag, and its result (negative: an error number). */
  reap(visit: (tag: number, result: number) => void): void {
    const { words, completions, completionMask } = this;
    const end = Atomics.load(words, this.completionTail);
    for (let head = words[this.completionHead]!; head !== end; head = (head + 1) | 0) {
      const at = completions + (head & completionMask) * CQE_WORDS;
      const tag = words[at]!;
      const result = words[at + 2]!;
      Atomics.store(words, this.completionHead, (head + 1) | 0);
      this.inFlight--;
      visit(tag, result);
    }
  }

  /** Makes the kernel write to an eventfd at each completion. */
  registerEventFd(eventFd: number): void {
    const argument = new Int32Array(new ArrayBuffer(4));
    argument[0] = eventFd;
    call(
      "io_uring_register",
      SYS_IO_URING_REGISTER,
      this.fd,
      IORING_REGISTER_EVENTFD,
      addressOf(argument),
      1,
      this.fd,
    );
  }

  get place(): RingPlace {
    const { fd, ringAddress, ringBytes, entryAddress, submissionHead, completionTail } = this;
    const entryBytes = 4 * SQE_WORDS * this.entries;
    return { fd, ringAddress, ringBytes, entryAddress, entryBytes, submissionHead, completionTail };
  }

  /** Precondition: nothing is in flight. */
  close(): void {
    detach(this.ringBuffer);
    detach(this.entryBuffer);
    closeRing(this.place);
  }
}

/**
 * True if all entries that the kernel has taken from the ring are complete. Each entry has one
 * completion, and the ring always has room for it (twice as many places as entries in flight), so
 * both counts are equal exactly then. Precondition: the ring is mapped, and no thread submits to
 * it.
 */
export function isRingDrained({
  ringAddress,
  ringBytes,
  submissionHead,
  completionTail,
}: RingPlace): boolean {
  const buffer = bufferAt(ringAddress, ringBytes);
  const words = new Int32Array(buffer, 0, ringBytes >>> 2);
  const isDrained = Atomics.load(words, submissionHead) === Atomics.load(words, completionTail);
  detach(buffer);
  return isDrained;
}

/** Precondition: nothing is in flight, and no typed array lies over the ring. */
export function closeRing({
  fd,
  ringAddress,
  ringBytes,
  entryAddress,
  entryBytes,
}: RingPlace): void {
  unmap(ringAddress, ringBytes);
  unmap(entryAddress, entryBytes);
  closeFile(fd);
}

function call(
  name: string,
  number: number,
  a: number,
  b: number,
  c: number,
  d: number,
  fd: number,
): number {
  const fault = countCall(name, fd, 0, 0);
  if (fault !== undefined && "errno" in fault) throw new SyscallError(name, fault.errno);
  const result = Number(libc.syscall(number, a, b, c, d, 0, 0));
  if (result === -1) throw new SyscallError(name, errno());
  return result;
}

/** eventfd(2), non-blocking and close-on-exec: a counter that an event loop can wait for. */
export function createEventFd(): number {
  const fault = countCall("eventfd", -1, 0, 0);
  if (fault !== undefined && "errno" in fault) throw new SyscallError("eventfd", fault.errno);
  const fd = libc.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd === -1) throw new SyscallError("eventfd", errno());
  return fd;
}
