/**
 * Which queue a restore's background pass uses, and whether past the page cache.
 *
 * What is in the page cache is copied fastest by Workers, which use several processors. What is not comes from the device:
 * io_uring with O_DIRECT needs a fraction of a processor, no second copy in the page cache, and no Worker per request.
 */
import { reopenDirect, residentFraction, uringUnavailable } from "../../ffi/index.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../pages/units.ts";
import { type LoadState, LoadWord } from "./load-state.ts";

/** What a restore is asked to use. */
export type LoadQueue = "auto" | "workers" | "uring" | "inline";

export interface QueueChoice {
  /** Null if nothing was chosen. */
  readonly queue: Exclude<LoadQueue, "auto"> | null;
  /** The pages file opened with O_DIRECT, to be closed by the load's owner; -1 if it is read through the page cache. */
  readonly directFd: number;
}

/** By LoadWord.Queue. */
const QUEUES = [null, "workers", "uring", "inline"] as const;

/** Where every thread finds it: another one may have to go on with the load. */
export function storeChoice({ words }: LoadState, { queue, directFd }: QueueChoice): void {
  words[LoadWord.Queue] = QUEUES.indexOf(queue);
  words[LoadWord.DirectFd] = directFd + 1;
}

export function choiceOf({ words }: LoadState): QueueChoice {
  return { queue: QUEUES[words[LoadWord.Queue]!]!, directFd: words[LoadWord.DirectFd]! - 1 };
}

/** Less than this is read before anything could be gained. */
const URING_BYTES_MIN = 8 * HUGE_PAGE_SIZE;
/** Below this part of the samples in the page cache, the file counts as cold. */
const HOT_FRACTION = 0.5;
const SAMPLES = 64;

/** Precondition: "uring" is not wanted where there is none (options.ts). */
export function chooseQueue(wanted: LoadQueue, fd: number, state: LoadState): QueueChoice {
  if (wanted === "inline" || wanted === "workers") return { queue: wanted, directFd: -1 };
  const { words } = state;
  if (wanted === "auto") {
    const bytes = words[LoadWord.PendingPages]! * PAGE_SIZE;
    if (bytes < URING_BYTES_MIN || uringUnavailable() !== null)
      return { queue: "workers", directFd: -1 };
  }
  const isCold = residentFraction(fd, SAMPLES) < HOT_FRACTION;
  const directFd = isCold && state.isPageAligned() ? reopenDirect(fd) : -1;
  // Through the page cache, and with nothing in it, Workers are as good and have been around for longer.
  return { queue: wanted === "auto" && directFd < 0 ? "workers" : "uring", directFd };
}
