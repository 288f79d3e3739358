/**
 * The task of a writing thread (worker/tasks.ts: "save.write"): writes page contents, ticket after
 * ticket. write-state.ts describes how threads keep in step, unit-stager.ts what they store.
 */
import type { Compression } from "../codec/codec.ts";
import { codecFor } from "../codec/open-codec.ts";
import { openControl, Word } from "../control/control.ts";
import { freeSlot, takeSlot } from "../control/participants.ts";
import { DestroyedError } from "../errors/errors.ts";
import { Overlay } from "../memory/overlay.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../pages/units.ts";
import { areFew, countPages, FullUnits } from "./data-finder.ts";
import { openWriter } from "./open-writer.ts";
import {
  type FramesHandle,
  type FrameRows,
  openFrames,
  openTable,
  type TableHandle,
} from "./save-table.ts";
import type { SinkDescription, SinkWriter } from "./sink.ts";
import { PAGES_PER_UNIT, type StagedFile, UnitStager } from "./unit-stager.ts";
import type { WorkList } from "./work-list.ts";
import {
  openWriteHandle,
  passOn,
  stopWriting,
  type WriteHandle,
  type WriteState,
  WriteWord,
  waitToReserve,
  waitToReserveAsync,
} from "./write-state.ts";

/** A MemoryFile that is being saved. postMessage can copy it. */
export interface WriteSource {
  /**
   * The file's control block. Each writer is a participant, because the saving thread may die
   * first.
   */
  readonly control: SharedArrayBuffer;
  readonly fd: number;
  readonly base: number;
  /** Pages that are mapped from page files (memory/overlay.ts); null: none. */
  readonly overlay: SharedArrayBuffer | null;
  /** Used pages: runs, ordered and disjoint. */
  readonly start: Uint32Array;
  readonly length: Uint32Array;
  /** The place of each run's copy; null: the runs are in the file's mapping. */
  readonly address: Float64Array | null;
  /** The order in which units are stored. Default: that of memory. */
  readonly units?: readonly number[];
  readonly table: TableHandle;
}

export interface WriteTask {
  readonly sources: readonly WriteSource[];
  readonly work: WorkList;
  /** Entries of a ticket. */
  readonly ticketEntries: number;
  readonly handle: WriteHandle;
  /** For each source: see FullUnits. */
  readonly fullUnits: readonly SharedArrayBuffer[];
  readonly frames: FramesHandle;
  /** The number of the first frame that is written. */
  readonly firstFrame: number;
  readonly hashSeed: number;
  readonly compression: Compression;
  /** See StagerOptions. */
  readonly isMove: boolean;
  readonly sink: SinkDescription;
}

export async function run(task: WriteTask): Promise<void> {
  const files = task.sources.map(({ control }) => openControl(control).words);
  const slots = files.map((words) => takeSlot(words));
  try {
    // A file that is destroyed during its save stays mapped by the slot of the saving thread, while
    // that lives.
    if (files.some((words) => Atomics.load(words, Word.Destroyed) === 2))
      throw new DestroyedError("MemoryFile", "saveTo()", true);
    await writeTickets(task);
  } finally {
    for (const [file, words] of files.entries()) freeSlot(words, slots[file]!);
  }
}

async function writeTickets(task: WriteTask): Promise<void> {
  const { words } = openWriteHandle(task.handle);
  let writer: TicketWriter | undefined;
  try {
    writer = new TicketWriter(task, await openWriter(task.sink));
    while (await writer.writeNext());
  } catch (error) {
    stopWriting(words);
    throw error;
  } finally {
    await writer?.close();
  }
}

/** Room for one unit more than a large write, so that a ticket of sparse units is one write. */
const OUTPUT_PAGES = (2 * HUGE_PAGE_SIZE) / PAGE_SIZE;

/** Frames that are staged and not written yet. */
class Pending {
  readonly page: Uint32Array;
  readonly crc: Uint32Array;
  /** Pairs of words. */
  readonly hash: Uint32Array;
  /** A row for each frame. */
  readonly file: Uint16Array;
  readonly pages: Uint16Array;
  readonly codec: Uint8Array;
  readonly storedBytes: Uint32Array;
  frames = 0;
  pageCount = 0;
  /** Pages of the output. */
  outputPages = 0;

  constructor(entries: number) {
    const most = entries * PAGES_PER_UNIT;
    this.page = new Uint32Array(most);
    this.crc = new Uint32Array(most);
    this.hash = new Uint32Array(2 * most);
    this.file = new Uint16Array(entries);
    this.pages = new Uint16Array(entries);
    this.codec = new Uint8Array(entries);
    this.storedBytes = new Uint32Array(entries);
  }

  clear(): void {
    this.frames = this.pageCount = this.outputPages = 0;
  }

  add(file: number, { unit }: UnitStager): void {
    const { count } = unit;
    if (count === 0) return;
    this.page.set(unit.page.subarray(0, count), this.pageCount);
    this.crc.set(unit.crc.subarray(0, count), this.pageCount);
    this.hash.set(unit.hashWords.subarray(0, 2 * count), 2 * this.pageCount);
    this.file[this.frames] = file;
    this.pages[this.frames] = count;
    this.codec[this.frames] = unit.codec;
    this.storedBytes[this.frames++] = unit.storedBytes;
    this.pageCount += count;
    this.outputPages += Math.ceil(unit.storedBytes / PAGE_SIZE);
  }
}

/** Pages of a frame whose pages are neighbours in memory. */
const ASCENDING = Uint16Array.from({ length: PAGES_PER_UNIT }, (_, i) => i);

class TicketWriter {
  private readonly task: WriteTask;
  private readonly words: Int32Array;
  private readonly state: WriteState;
  private readonly files: readonly StagedFile[];
  private readonly rows: FrameRows;
  private readonly sink: SinkWriter;
  private readonly stager: UnitStager;
  private readonly pending: Pending;
  /** File of the last entry. */
  private file = 0;

  constructor(task: WriteTask, sink: SinkWriter) {
    this.task = task;
    this.sink = sink;
    this.state = openWriteHandle(task.handle);
    this.words = this.state.words;
    this.files = task.sources.map((source, i) => ({
      ...source,
      fullUnits: new FullUnits(task.fullUnits[i]!),
      areFew: source.address === null && areFew(source.fd, countPages(source.length)),
      overlay: source.overlay === null ? null : new Overlay(source.overlay, source),
      table: openTable(source.table),
    }));
    this.rows = openFrames(task.frames);
    this.pending = new Pending(task.ticketEntries);
    const codec = task.compression === "none" ? null : codecFor(task.compression);
    const { hashSeed, isMove } = task;
    this.stager = new UnitStager({ codec, hashSeed, isMove }, OUTPUT_PAGES);
  }

  async close(): Promise<void> {
    this.stager.close();
    await this.sink.close();
  }

  /** False when there are no more tickets. */
  async writeNext(): Promise<boolean> {
    const { words, pending, stager } = this;
    const { work, ticketEntries } = this.task;
    const ticket = Atomics.add(words, WriteWord.Ticket, 1);
    const first = ticket * ticketEntries;
    const end = Math.min(work.unit.length, first + ticketEntries);
    if (first >= end) return false;
    let mayReserve = false;
    for (let entry = first; entry < end; entry++) {
      const file = this.fileOf(entry);
      stager.stage(this.files[file]!, work.unit[entry]!, work.run[entry]!, pending.outputPages);
      this.count();
      pending.add(file, stager);
      const isFull = pending.outputPages > OUTPUT_PAGES - PAGES_PER_UNIT;
      if (!isFull || entry === end - 1) continue;
      // The ticket passes on only when all of it is reserved.
      if (!mayReserve && !(await this.waitToReserve(ticket))) return false;
      mayReserve = true;
      await this.write(this.reserve());
    }
    if (!mayReserve && !(await this.waitToReserve(ticket))) return false;
    const offset = this.reserve();
    passOn(words, ticket);
    await this.write(offset);
    return Atomics.load(words, WriteWord.Stop) === 0;
  }

  private waitToReserve(ticket: number): boolean | Promise<boolean> {
    const { words, sink } = this;
    return sink.mayBlock ? waitToReserve(words, ticket) : waitToReserveAsync(words, ticket);
  }

  /** The file of an entry. Entries come in ascending order. */
  private fileOf(entry: number): number {
    const { fileEntry } = this.task.work;
    while (entry >= fileEntry[this.file + 1]!) this.file++;
    return this.file;
  }

  private count(): void {
    const { zeroPages, reusedPages } = this.stager.unit;
    if (zeroPages > 0) Atomics.add(this.words, WriteWord.ZeroPages, zeroPages);
    if (reusedPages > 0) Atomics.add(this.words, WriteWord.ReusedPages, reusedPages);
  }

  /**
   * Precondition: the ticket may reserve. Takes the next bytes of the page file and the next
   * frames. Returns the offset.
   */
  private reserve(): number {
    const { pending, words, rows, state, task } = this;
    const offset = state.reservedBytes[0]!;
    const frame = words[WriteWord.FrameCount]!;
    const end = offset + pending.outputPages * PAGE_SIZE;
    if (end > offset) this.sink.reserve(end);
    let at = offset;
    let page = 0;
    for (let i = 0; i < pending.frames; i++) {
      const pages = pending.pages[i]!;
      rows.codec[frame + i] = pending.codec[i]!;
      rows.pages[frame + i] = pages;
      rows.offset[frame + i] = at;
      rows.storedBytes[frame + i] = pending.storedBytes[i]!;
      this.note(i, page, task.firstFrame + frame + i + 1);
      at += Math.ceil(pending.storedBytes[i]! / PAGE_SIZE) * PAGE_SIZE;
      page += pages;
    }
    words[WriteWord.FrameCount] = frame + pending.frames;
    state.reservedBytes[0] = end;
    return offset;
  }

  /**
   * Enters the places of the pages of pending frame `i` into the save table. The first page is at
   * `first`.
   */
  private note(i: number, first: number, frame: number): void {
    const { page, crc, hash, pages, file } = this.pending;
    const { table } = this.files[file[i]!]!;
    const count = pages[i]!;
    const end = first + count;
    const start = page[first]!;
    if (page[end - 1]! - start === count - 1) {
      table.frame.fill(frame, start, start + count);
      table.framePage.set(ASCENDING.subarray(0, count), start);
      table.crc.set(crc.subarray(first, end), start);
      table.hash?.set(hash.subarray(2 * first, 2 * end), 2 * start);
      return;
    }
    for (let at = first; at < end; at++) {
      const to = page[at]!;
      table.frame[to] = frame;
      table.framePage[to] = at - first;
      table.crc[to] = crc[at]!;
      if (table.hash === null) continue;
      table.hash[2 * to] = hash[2 * at]!;
      table.hash[2 * to + 1] = hash[2 * at + 1]!;
    }
  }

  private async write(offset: number): Promise<void> {
    const { pending, stager } = this;
    const lengthBytes = pending.outputPages * PAGE_SIZE;
    if (lengthBytes > 0) {
      const isLater = this.sink.write(stager.outputAddress, lengthBytes, offset);
      if (isLater !== undefined) await isLater;
      Atomics.add(this.words, WriteWord.WrittenPages, pending.pageCount);
    }
    pending.clear();
  }
}
