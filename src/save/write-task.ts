/**
 * Finds and writes page contents (threads/tasks.ts: "save.write"): what each thread of a save runs, piece after piece, a
 * piece being up to 2 MiB of used pages that the kernel has memory for. write-state.ts says how threads keep in step.
 *
 * SEEK_DATA and SEEK_HOLE tell what has memory, exactly, and touch no page: so a save commits nothing, where gVisor reads
 * uncommitted pages and must decommit them again. They are called while the thread before this one writes; a memory file
 * with every fourth page absent needs 262,144 of them for 2 GiB, 0.2 s that nobody waits for.
 *
 * Pages with anything but zeros in them are copied to a buffer of the thread's own, checksummed there and written from
 * there: the program may write to the memory meanwhile, and a checksum must be that of the bytes written. The copy is
 * needed for the zero pages' sake anyway (what is stored stands without gaps), costs 0.1 s/GiB, and runs beside the disk.
 */
import {
  allocateRange,
  bufferAt,
  copyMemory,
  detach,
  isZero,
  mapAnonymous,
  SyscallError,
  seekData,
  seekHole,
  setDirectIo,
  truncateFile,
  unmap,
  writeAt,
} from "../../ffi/index.ts";
import { DestroyedError } from "../errors/errors.ts";
import { openControl, Word } from "../control/control.ts";
import { freeSlot, takeSlot } from "../control/participants.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../pages/units.ts";
import { crc32 } from "../checkpoint/format.ts";
import {
  openWriteHandle,
  passTurn,
  stopWriting,
  type WriteHandle,
  type WriteSource,
  type WriteState,
  WriteWord,
  waitTurn,
} from "./write-state.ts";

export const PIECE_BYTES = HUGE_PAGE_SIZE;
const PIECE_PAGES = PIECE_BYTES / PAGE_SIZE;
/** Behind every page: no data follows. */
const NO_MORE = 2 ** 31 - 1;
const EINVAL = 22;
const EIO = 5;

export interface WriteTask {
  readonly fd: number;
  readonly path: string;
  readonly sources: readonly WriteSource[];
  readonly handle: WriteHandle;
  /**
   * How much of the file to allocate before the first write; 0 for none. Without it direct writes that make the file longer
   * go one at a time (1.7 to 2.2 s instead of 1.5 to 1.8 for 2 GiB on ext4).
   */
  readonly allocateBytes: number;
}

export function run(task: WriteTask): void {
  const files = task.sources.map(({ control }) => openControl(control).words);
  const slots = files.map((words) => takeSlot(words));
  try {
    // A file that is destroyed while it is saved stays mapped by the slot of the thread that saves it, if that lives.
    if (files.some((words) => Atomics.load(words, Word.Destroyed) === 2))
      throw new DestroyedError("MemoryFile", "saveTo()");
    writePieces(task);
  } finally {
    for (const [file, words] of files.entries()) freeSlot(words, slots[file]!);
  }
}

function writePieces(task: WriteTask): void {
  const writer = new PieceWriter(task);
  try {
    while (writer.writeNext());
  } catch (error) {
    stopWriting(writer.words);
    throw error;
  } finally {
    writer.close();
  }
}

/** Runs of pages of one piece: at most one a page. */
class Runs {
  readonly start = new Uint32Array(PIECE_PAGES);
  readonly length = new Uint32Array(PIECE_PAGES);
  count = 0;
  pages = 0;

  clear(): void {
    this.count = this.pages = 0;
  }

  /** `start` is not before the end of what was added. */
  add(start: number, length: number): void {
    const last = this.count - 1;
    if (last >= 0 && this.start[last]! + this.length[last]! === start) {
      this.length[last]! += length;
    } else {
      this.start[this.count] = start;
      this.length[this.count++] = length;
    }
    this.pages += length;
  }
}

class PieceWriter {
  readonly words: Int32Array;
  private readonly task: WriteTask;
  private readonly state: WriteState;
  private readonly staging = mapAnonymous(PIECE_BYTES);
  private readonly buffer = bufferAt(this.staging, PIECE_BYTES);
  /** A view for each page of the buffer: making them anew costs as much as the checksums. */
  private readonly pages = Array.from(
    { length: PIECE_PAGES },
    (_, i) => new Uint8Array(this.buffer, i * PAGE_SIZE, PAGE_SIZE),
  );
  private readonly checksums = new Uint32Array(PIECE_PAGES);
  /** What has memory; what of it is to be stored. */
  private readonly data = new Runs();
  private readonly extents = new Runs();
  private file = 0;

  constructor(task: WriteTask) {
    this.task = task;
    this.state = openWriteHandle(task.handle);
    this.words = this.state.words;
  }

  close(): void {
    detach(this.buffer);
    unmap(this.staging, PIECE_BYTES);
  }

  /** False when there is no more. */
  writeNext(): boolean {
    const { words } = this;
    const ticket = Atomics.add(words, WriteWord.Ticket, 1);
    if (!waitTurn(words, WriteWord.CursorTurn, ticket)) return false;
    if (ticket === 0) this.allocate();
    this.find();
    passTurn(words, WriteWord.CursorTurn, ticket);
    this.stage();
    if (!waitTurn(words, WriteWord.OffsetTurn, ticket)) return false;
    const isLast = this.data.count === 0;
    const first = words[WriteWord.PlacedPages]!;
    if (isLast) this.truncate(first);
    else this.place(first);
    passTurn(words, WriteWord.OffsetTurn, ticket);
    if (!isLast) this.write(first);
    return !isLast;
  }

  /** Has the file system allocate the most that there can be to write: see WriteTask.allocateBytes. */
  private allocate(): void {
    const { fd, allocateBytes } = this.task;
    if (allocateBytes === 0) return;
    try {
      allocateRange(fd, 0, allocateBytes);
    } catch (error) {
      // It cannot, or has no room for the worst case; whether there is room for what is written, writing will tell.
      if (error instanceof SyscallError) return;
      throw error;
    }
    this.words[WriteWord.Allocated] = 1;
  }

  /** All is placed: the file ends there. Writes may still be under way before it. */
  private truncate(pages: number): void {
    if (this.words[WriteWord.Allocated] === 0) return;
    this.words[WriteWord.Allocated] = 0;
    truncateFile(this.task.fd, pages * PAGE_SIZE);
  }

  /** Moves the cursor over the next pages that have memory, up to a piece of them, all of one file. */
  private find(): void {
    const { words, data } = this;
    const { sources } = this.task;
    data.clear();
    let run = words[WriteWord.CursorRun]!;
    let page = words[WriteWord.CursorPage]!;
    let dataStart = words[WriteWord.CursorDataStart]!;
    let dataEnd = words[WriteWord.CursorDataEnd]!;
    for (this.file = words[WriteWord.CursorFile]!; this.file < sources.length; this.file++) {
      const { fd, start, length } = sources[this.file]!;
      for (; run < start.length && data.pages < PIECE_PAGES; run++) {
        page = Math.max(page, start[run]!);
        const end = start[run]! + length[run]!;
        while (page < end && data.pages < PIECE_PAGES) {
          if (page >= dataEnd) {
            const offset = seekData(fd, page * PAGE_SIZE);
            // A hole may begin inside a page on a file system with smaller blocks. Both may be the same by now: the program
            // decommitted it, and the next turn of the loop looks again.
            dataStart = offset < 0 ? NO_MORE : Math.floor(offset / PAGE_SIZE);
            dataEnd = offset < 0 ? NO_MORE : Math.ceil(seekHole(fd, offset) / PAGE_SIZE);
          }
          page = Math.max(page, Math.min(dataStart, end));
          const count = Math.min(end, dataEnd, page + PIECE_PAGES - data.pages) - page;
          if (count > 0) data.add(page, count);
          page += Math.max(count, 0);
        }
        if (page < end) break;
      }
      if (data.count > 0) break;
      run = page = dataStart = dataEnd = 0;
    }
    words[WriteWord.CursorFile] = this.file;
    words[WriteWord.CursorRun] = run;
    words[WriteWord.CursorPage] = page;
    words[WriteWord.CursorDataStart] = dataStart;
    words[WriteWord.CursorDataEnd] = dataEnd;
  }

  /** Copies what is not zero into the buffer, and computes its checksums. */
  private stage(): void {
    const { data, extents } = this;
    extents.clear();
    if (data.count === 0) return;
    const { base } = this.task.sources[this.file]!;
    for (let i = 0; i < data.count; i++) {
      const end = data.start[i]! + data.length[i]!;
      let copyFrom = data.start[i]!;
      for (let page = copyFrom; page < end; page++) {
        if (!isZero(base + page * PAGE_SIZE, PAGE_SIZE)) continue;
        this.copy(base, copyFrom, page);
        copyFrom = page + 1;
      }
      this.copy(base, copyFrom, end);
    }
    for (let i = 0; i < extents.pages; i++) this.checksums[i] = crc32(this.pages[i]!);
    if (extents.pages < data.pages)
      Atomics.add(this.words, WriteWord.ZeroPages, data.pages - extents.pages);
  }

  private copy(base: number, start: number, end: number): void {
    if (start === end) return;
    copyMemory(
      this.staging + this.extents.pages * PAGE_SIZE,
      base + start * PAGE_SIZE,
      (end - start) * PAGE_SIZE,
    );
    this.extents.add(start, end - start);
  }

  /** Appends the piece to the columns, as pages `first` and on of the pages file. */
  private place(first: number): void {
    const { words, extents, state } = this;
    let at = words[WriteWord.ExtentCount]!;
    for (let file = words[WriteWord.PlacedFile]! + 1; file <= this.file; file++)
      state.firstExtent[file] = at;
    words[WriteWord.PlacedFile] = this.file;
    let from = 0;
    if (extents.count > 0 && at > state.firstExtent[this.file]!) {
      const last = at - 1;
      if (state.extentStart[last]! + state.extentLength[last]! === extents.start[0]) {
        state.extentLength[last]! += extents.length[0]!;
        from = 1;
      }
    }
    state.extentStart.set(extents.start.subarray(from, extents.count), at);
    state.extentLength.set(extents.length.subarray(from, extents.count), at);
    at += extents.count - from;
    state.checksums.set(this.checksums.subarray(0, extents.pages), first);
    words[WriteWord.ExtentCount] = at;
    words[WriteWord.PlacedPages] = first + extents.pages;
  }

  private write(first: number): void {
    const { fd, path } = this.task;
    const lengthBytes = this.extents.pages * PAGE_SIZE;
    let written = writeAt(fd, this.staging, lengthBytes, first * PAGE_SIZE);
    if (written === -EINVAL) {
      // Direct I/O may want more alignment than pages have, or a short write ended where it cannot go on: without it, then.
      setDirectIo(fd, false);
      written = writeAt(fd, this.staging, lengthBytes, first * PAGE_SIZE);
    }
    if (written < 0) throw new SyscallError("pwrite", -written, path);
    if (written < lengthBytes)
      throw new SyscallError("pwrite", EIO, path, `wrote ${written} of ${lengthBytes} bytes`);
    Atomics.add(this.words, WriteWord.WrittenPages, this.extents.pages);
  }
}
