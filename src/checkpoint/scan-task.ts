/**
 * Finds the pages that a checkpoint must store (threads/tasks.ts: "save.scan"): of the used pages those that the kernel has
 * memory for and that hold anything but zeros. SEEK_DATA and SEEK_HOLE tell the first exactly and touch no page; so
 * scanning commits nothing, where gVisor reads uncommitted pages and must decommit them again.
 */
import { isZero, seekData, seekHole } from "../../ffi/index.ts";
import { PAGE_SIZE } from "../units.ts";

export interface ScanTask {
  readonly fd: number;
  readonly base: number;
  /** Used pages: start and length, ordered. */
  readonly start: Uint32Array;
  readonly length: Uint32Array;
}

export interface ScanResult {
  readonly start: Uint32Array;
  readonly length: Uint32Array;
  /** Pages that have memory but only zeros in it. */
  readonly zeroPages: number;
}

export function run(task: ScanTask): ScanResult {
  const extents = new ExtentColumns();
  let zeroPages = 0;
  for (let i = 0; i < task.start.length; i++) {
    const end = (task.start[i]! + task.length[i]!) * PAGE_SIZE;
    for (let offset = task.start[i]! * PAGE_SIZE; offset < end; ) {
      const data = seekData(task.fd, offset);
      if (data < 0 || data >= end) break;
      const hole = Math.min(seekHole(task.fd, data), end);
      // A hole may begin inside a page on a file system with smaller blocks.
      const last = Math.ceil(hole / PAGE_SIZE);
      for (let page = Math.floor(data / PAGE_SIZE); page < last; page++) {
        if (isZero(task.base + page * PAGE_SIZE, PAGE_SIZE)) zeroPages++;
        else extents.add(page);
      }
      offset = last * PAGE_SIZE;
    }
  }
  return { ...extents.columns(), zeroPages };
}

/** Growing columns of extents; pages arrive in order. */
class ExtentColumns {
  private start = new Uint32Array(1024);
  private length = new Uint32Array(1024);
  private count = 0;

  add(page: number): void {
    const last = this.count - 1;
    if (last >= 0 && this.start[last]! + this.length[last]! === page) {
      this.length[last]!++;
      return;
    }
    if (this.count === this.start.length) {
      this.start = grown(this.start);
      this.length = grown(this.length);
    }
    this.start[this.count] = page;
    this.length[this.count++] = 1;
  }

  columns(): { start: Uint32Array; length: Uint32Array } {
    return { start: this.start.slice(0, this.count), length: this.length.slice(0, this.count) };
  }
}

function grown(column: Uint32Array): Uint32Array<ArrayBuffer> {
  const larger = new Uint32Array(2 * column.length);
  larger.set(column);
  return larger;
}
