/**
 * FrameDecoder: decodes compressed frames from scratch memory into pages.
 *
 * Newer pages are never overwritten. A frame is decoded in place if the claim has all of its pages,
 * in one piece of memory; else into other memory, from which the claimed pages are copied.
 */
import { copyMemory, mapAnonymous, unmap } from "../../ffi/index.ts";
import type { CodecId } from "../codec/codec.ts";
import { openCodec } from "../codec/open-codec.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../pages/units.ts";
import { ERROR_FRAME } from "./load-state.ts";
import { populateForWrite } from "./populate.ts";
import type { UnitJob } from "./unit-job.ts";

export class FrameDecoder {
  /** Memory for frames that cannot be decoded in place: HUGE_PAGE_SIZE, or 0. */
  private decoded = 0;

  /** Decodes a frame from scratch memory. Returns 0, or the number of an error. */
  decode(job: UnitJob, op: number): number {
    const { plan } = job;
    const { state, base } = job.load!;
    const frame = plan.item[op]!;
    const { codec, storedBytes, pages: framePages } = state.places.frames;
    const lengthBytes = framePages[frame]! * PAGE_SIZE;
    const refused = job.isHuge ? null : this.populate(job, op);
    if (refused !== null) return state.errors.add(refused);
    let inPlace = 0;
    plan.forEachRun(op, (page, pages, _rank, framePage) => {
      if (framePage === 0 && pages === framePages[frame]) inPlace = base + page * PAGE_SIZE;
    });
    if (inPlace === 0 && this.decoded === 0) this.decoded = mapAnonymous(HUGE_PAGE_SIZE);
    const destination = inPlace === 0 ? this.decoded : inPlace;
    try {
      const decoded = openCodec(codec[frame]! as CodecId).decode({
        source: job.scratchAt[op]!,
        storedBytes: storedBytes[frame]!,
        destination,
        lengthBytes,
      });
      if (decoded !== lengthBytes) return ERROR_FRAME;
    } catch (error) {
      // This machine does not have the codec: the waiters get the error.
      return state.errors.add(error as Error);
    }
    if (inPlace === 0) {
      plan.forEachRun(op, (page, pages, _rank, framePage) =>
        copyMemory(base + page * PAGE_SIZE, destination + framePage * PAGE_SIZE, pages * PAGE_SIZE),
      );
    }
    return 0;
  }

  /** Makes the frame's pages present: on a full disk a write would be a SIGBUS. */
  private populate(job: UnitJob, op: number): Error | null {
    let refused: Error | null = null;
    job.plan.forEachRun(op, (page, pages) => {
      refused ??= populateForWrite(job.load!.base + page * PAGE_SIZE, pages * PAGE_SIZE);
    });
    return refused;
  }

  close(): void {
    if (this.decoded !== 0) unmap(this.decoded, HUGE_PAGE_SIZE);
    this.decoded = 0;
  }
}
