/** The detectors of one save's files, from the save's beginning to its end. */
import { SyscallError, trackingUnavailable } from "../../ffi/index.ts";
import { Field } from "../control/control.ts";
import type { FileCore } from "../core/core.ts";
import { type Detector, HashDetector, MappedDetector, TrackingDetector } from "./detector.ts";
import type { SaveFile, SavePlan } from "./options.ts";

const TRACKER_POLL_MS = 2;

/** The detectors of a save's files. If writes are tracked, the save owns the files' trackers. */
export class Detectors {
  private readonly detectors = new Map<FileCore, Detector>();
  private readonly owned: FileCore[] = [];

  of(core: FileCore): Detector | null {
    return this.detectors.get(core) ?? null;
  }

  /**
   * Waits while another save owns a tracker. In the order of ids, so that saves do not wait for
   * each other. `baseIdOf`: the id of the base whose contents a file's table begins with.
   */
  async begin(
    plan: SavePlan,
    hashSeed: number,
    baseIdOf: (core: FileCore) => string | null,
  ): Promise<void> {
    const idOf = ({ core }: SaveFile) => core.control.fields[Field.FileId]!;
    for (const { core, name } of plan.files.toSorted((a, b) => idOf(a) - idOf(b))) {
      // Returning mapped pages makes new mappings, which userfaultfd does not track.
      if (core.mapping.overlay !== null) {
        this.detectors.set(core, new MappedDetector(core, hashSeed, name, baseIdOf(core)));
        continue;
      }
      if (!canTrack(core)) {
        this.detectors.set(core, new HashDetector(core, hashSeed));
        continue;
      }
      while (!core.changes.tryBegin()) {
        await Bun.sleep(TRACKER_POLL_MS);
        plan.signal?.throwIfAborted();
        core.requireStillLive("saveTo()");
      }
      this.owned.push(core);
      this.detectors.set(core, new TrackingDetector(core, name, baseIdOf(core)));
    }
  }

  committed(id: string): void {
    for (const detector of this.detectors.values()) detector.committed(id);
  }

  close(): void {
    for (const core of this.owned) {
      core.changes.end();
      if (core.isDetached) core.changes.detach();
    }
  }
}

/** True if the kernel now tracks the file's pages. */
function canTrack({ changes, allocator }: FileCore): boolean {
  if (!changes.isActive) {
    if (trackingUnavailable() !== null) return false;
    allocator.lock();
    try {
      changes.activate();
    } catch (error) {
      // Tracking is optional: descriptors may be used up, or the container refuses it.
      if (error instanceof SyscallError) return false;
      throw error;
    } finally {
      allocator.unlock();
    }
  }
  return changes.counters().detection === "userfaultfd";
}
