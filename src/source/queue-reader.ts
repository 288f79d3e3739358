/**
 * QueueReader: reads files through an aio queue, inline or io_uring.
 *
 * A file may have a second descriptor without the page cache (O_DIRECT). Aligned reads use it. A
 * file system that opens a file this way may still refuse the read (EINVAL): then that read, and
 * all later ones, go through the page cache.
 */
import { errnoNumber, SyscallError } from "../../ffi/index.ts";
import type { Queue } from "../aio/queue.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import type { FileContent } from "./description.ts";
import type { ReadCompletions, ReaderCapabilities, SourceReader } from "./reader.ts";

const EINVAL = errnoNumber("EINVAL");

/** A read in flight, with all that is needed to make it again and to name it in an error. */
interface Pending {
  readonly id: number;
  readonly content: number;
  readonly offset: number;
  readonly count: number;
  readonly isDirect: boolean;
  /** Null if the read is never made again. */
  readonly iovecs: Float64Array | null;
}

export class QueueReader implements SourceReader {
  readonly capabilities: ReaderCapabilities;
  private readonly queue: Queue;
  private readonly contents: readonly FileContent[];
  private isDirect: boolean;
  /** Indexed by the id in the queue. */
  private readonly pending: (Pending | undefined)[];
  private readonly freeIds: number[];
  private readonly done: {
    count: number;
    readonly ids: Float64Array;
    readonly bytes: Float64Array;
    readonly errors: (Error | null)[];
  };

  /** The reader owns the queue. The source owns the contents. */
  constructor(
    queue: Queue,
    contents: readonly FileContent[],
    options: { readonly isDirect: boolean; readonly readBytesMax: number },
  ) {
    const { capacity } = queue;
    this.queue = queue;
    this.contents = contents;
    this.isDirect = options.isDirect;
    this.pending = new Array<Pending | undefined>(capacity).fill(undefined);
    this.freeIds = Array.from({ length: capacity }, (_, i) => capacity - 1 - i);
    this.done = {
      count: 0,
      ids: new Float64Array(capacity),
      bytes: new Float64Array(capacity),
      errors: new Array<Error | null>(capacity).fill(null),
    };
    this.capabilities = {
      readsInFlight: capacity,
      readBytesMax: options.readBytesMax,
      alignmentBytes: options.isDirect ? PAGE_SIZE : 1,
      mayBlock: true,
      mayFailInPart: true,
    };
  }

  get inFlight(): number {
    return this.queue.inFlight;
  }

  get usefulReads(): number {
    return this.queue.capacity;
  }

  read(id: number, content: number, offset: number, iovecs: Float64Array, count: number): void {
    const file = this.contents[content];
    if (file === undefined)
      throw new RangeError(`Expected content to be below ${this.contents.length}, got ${content}`);
    const isDirect = this.isDirect && file.directFd >= 0 && isAligned(offset, iovecs, count);
    const slot = this.freeIds.at(-1);
    if (slot === undefined)
      throw new RangeError(`Cannot add a read: ${this.queue.capacity} reads are in flight`);
    this.add(slot, isDirect ? file.directFd : file.fd, offset, iovecs, count);
    this.freeIds.pop();
    this.pending[slot] = {
      id,
      content,
      offset,
      count,
      isDirect,
      iovecs: isDirect ? iovecs.slice(0, 2 * count) : null,
    };
  }

  private add(slot: number, fd: number, offset: number, iovecs: Float64Array, count: number): void {
    if (count === 1) this.queue.read(slot, fd, iovecs[0]!, iovecs[1]!, offset);
    else this.queue.readv(slot, fd, iovecs, count, offset);
  }

  wait(minCompletions: number): ReadCompletions {
    const { done } = this;
    done.count = 0;
    do this.take(this.queue.wait(minCompletions - done.count));
    while (done.count < minCompletions);
    return done;
  }

  async waitAsync(minCompletions: number): Promise<ReadCompletions> {
    const { done } = this;
    done.count = 0;
    do this.take(await this.queue.waitAsync(minCompletions - done.count));
    while (done.count < minCompletions);
    return done;
  }

  /** Takes ended reads from the queue. A refused direct read goes back into the queue. */
  private take({ count, ids, results }: ReturnType<Queue["wait"]>): void {
    const { done } = this;
    for (let i = 0; i < count; i++) {
      const slot = ids[i]!;
      const read = this.pending[slot]!;
      const result = results[i]!;
      const file = this.contents[read.content]!;
      if (result === -EINVAL && read.iovecs !== null) {
        this.isDirect = false;
        this.add(slot, file.fd, read.offset, read.iovecs, read.count);
        this.pending[slot] = { ...read, isDirect: false, iovecs: null };
        continue;
      }
      done.ids[done.count] = read.id;
      done.bytes[done.count] = Math.max(0, result);
      done.errors[done.count++] =
        result < 0 ? new SyscallError("pread", -result, file.path, `offset ${read.offset}`) : null;
      this.pending[slot] = undefined;
      this.freeIds.push(slot);
    }
  }

  async close(): Promise<void> {
    await this.queue.destroy();
  }
}

function isAligned(offset: number, iovecs: Float64Array, count: number): boolean {
  if (offset % PAGE_SIZE !== 0) return false;
  for (let i = 0; i < 2 * count; i++) if (iovecs[i]! % PAGE_SIZE !== 0) return false;
  return true;
}
