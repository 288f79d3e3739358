/**
 * Faults for a program under test, in all of its threads, without a line in the library: a file of
 * words that the test and every thread of the program map. The test writes a plan; the hook of
 * fault-hook.ts, which is in all those threads, carries it out through the fault seam of
 * ffi/calls.ts. Counts survive the program, also when it was killed.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Int32 words of the file. */
export const FaultWord = {
  /** Wrapped calls made that match the filter. Atomics.add by the program's threads. */
  Seen: 0,
  /** One of FaultAction. */
  Action: 1,
  /** The matching calls [From, Until) are hit; the first is number 0. */
  From: 2,
  Until: 3,
  /** An errno, a number of bytes, or milliseconds, depending on the action. */
  Value: 4,
  /** Calls hit. */
  Hits: 5,
  /** Bits of FaultCall: which calls match. */
  Calls: 6,
  /** 1: only calls on files of a checkpoint's page contents match. */
  OnlyPages: 7,
  /**
   * Only transfers that touch bytes [OffsetFrom, OffsetUntil) of the file match, in pages; all if
   * both are 0.
   */
  OffsetFrom: 8,
  OffsetUntil: 9,
} as const;

export const FaultAction = {
  None: 0,
  /** SIGKILL to the whole process, before the call is made. */
  Kill: 1,
  /** The call fails with errno `Value`. */
  Fail: 2,
  /** A transfer moves at most `Value` bytes; 0 looks like the end of the file. */
  Shorten: 3,
  /** The thread sleeps for `Value` milliseconds, and makes the call then. */
  Delay: 4,
  /** The Worker exits at once, as if it had crashed. On the main thread: nothing. */
  ExitThread: 5,
} as const;

export const CALL_NAMES = [
  "open",
  "openat",
  "renameat",
  "unlinkat",
  "flock",
  "close",
  "fsync",
  "memfd_create",
  "fcntl",
  "ftruncate",
  "fallocate",
  "lseek",
  "fstat",
  "pread",
  "pwrite",
  "preadv",
  "pwritev",
  "mmap",
  "munmap",
  "madvise",
  "uring_read",
  "uring_readv",
  "mkdir",
  "getdents",
] as const;
export type CallName = (typeof CALL_NAMES)[number];

/** The environment variable with the path of the program's control file. */
export const FAULTS_VARIABLE = "PGALLOC_TEST_FAULTS";
const preload = join(import.meta.dir, "fault-preload.ts");

export interface FaultPlan {
  readonly action: keyof typeof FaultAction;
  readonly calls?: readonly CallName[];
  readonly from?: number;
  readonly until?: number;
  readonly value?: number;
  readonly onlyPages?: boolean;
  /** Only transfers that touch these pages of the file. Half-open. */
  readonly filePages?: readonly [number, number];
}

/** A control file, and programs run under it. */
export class Faults implements Disposable {
  readonly directory = mkdtempSync(join(tmpdir(), "pgalloc-faults-"));
  readonly path = join(this.directory, "control");
  readonly words: Int32Array;

  constructor() {
    writeFileSync(this.path, new Uint8Array(4096));
    this.words = mapWords(this.path);
  }

  /** Forgets earlier faults, and carries out `plan` from the next call on. */
  arm(plan: FaultPlan): void {
    const { words } = this;
    words[FaultWord.Action] = FaultAction.None;
    words[FaultWord.Seen] = 0;
    words[FaultWord.Hits] = 0;
    words[FaultWord.From] = plan.from ?? 0;
    words[FaultWord.Until] = plan.until ?? 2 ** 31 - 1;
    words[FaultWord.Value] = plan.value ?? 0;
    [words[FaultWord.OffsetFrom], words[FaultWord.OffsetUntil]] = plan.filePages ?? [0, 0];
    words[FaultWord.OnlyPages] = plan.onlyPages === true ? 1 : 0;
    words[FaultWord.Calls] = (plan.calls ?? CALL_NAMES).reduce(
      (bits, name) => bits | (1 << CALL_NAMES.indexOf(name)),
      0,
    );
    Atomics.store(words, FaultWord.Action, FaultAction[plan.action]);
  }

  disarm(): void {
    Atomics.store(this.words, FaultWord.Action, FaultAction.None);
  }

  get seen(): number {
    return Atomics.load(this.words, FaultWord.Seen);
  }

  get hits(): number {
    return Atomics.load(this.words, FaultWord.Hits);
  }

  /** The command and environment that run a program under this control. */
  command(
    program: string,
    ...args: string[]
  ): { cmd: string[]; env: Record<string, string | undefined> } {
    return {
      cmd: [process.execPath, "--preload", preload, program, ...args],
      env: { ...process.env, [FAULTS_VARIABLE]: this.path },
    };
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true });
  }
}

/** The words of a control file, shared with everybody who maps it. */
export function mapWords(path: string): Int32Array {
  const bytes = Bun.mmap(path, { shared: true });
  return new Int32Array(bytes.buffer, bytes.byteOffset, 64);
}
