/** Waits for a load: the work of MemoryFile's awaitLoad, retryLoad and awaitLoadSync. */
import { Word } from "../control/control.ts";
import { whileStill } from "../control/stops.ts";
import type { FileCore } from "../core/core.ts";
import { signalOf, type WaitOptions } from "../core/wait.ts";
import { populateHere, populateInThread } from "../load/populate-task.ts";
import { recordAwait, recordAwaitSync } from "../metrics/record.ts";
import type { RangeLike } from "../pages/range.ts";

interface Pages {
  readonly start: number;
  readonly end: number;
}

/** As MemoryFile.awaitLoad. */
export async function awaitLoad(
  core: FileCore,
  range: RangeLike | null | undefined,
  options: WaitOptions | null | undefined,
): Promise<void> {
  const pages = pagesToAwait(core, range, "awaitLoad()");
  const signal = signalOf(options);
  const isRange = range != null;
  if (pages === null) return isRange ? await populateUnchecked(core) : await core.loadEnd;
  const { start, end } = pages;
  const loader = core.loader!;
  if (isRange) loader.noteUse(start, end);
  // Read before the wait begins, because the wait may load the range at once.
  const isThere = isRange && loader.isLoaded(start, end);
  const wait = () => loader.awaitLoad(start, end, isRange, signal);
  if (isThere) await wait();
  else await recordAwait(core, isRange ? "range" : "all", pages, wait);
  if (!isRange) await core.loadEnd;
}

/** Populates the range that was checked last, if it is mapped and no check has populated it. */
async function populateUnchecked(core: FileCore): Promise<void> {
  const { control, mapping, loader, startPage: start, endPage: end } = core;
  const { overlay } = mapping;
  if (overlay === null || !overlay.isUnchecked || populateHere(overlay, { start, end })) return;
  const shared = loader!.state.handle.overlay!;
  await populateInThread(control, mapping, shared, { start, end });
  core.requireLive("awaitLoad()");
}

/** As MemoryFile.retryLoad. */
export async function retryLoad(
  core: FileCore,
  range: RangeLike | null | undefined,
  options: WaitOptions | null | undefined,
): Promise<void> {
  const pages = pagesToAwait(core, range, "retryLoad()");
  const signal = signalOf(options);
  if (pages === null) return;
  await core.loader!.retry(pages.start, pages.end);
  await awaitLoad(core, range, { signal });
}

/** As MemoryFile.awaitLoadSync. */
export function awaitLoadSync(core: FileCore, range: RangeLike | null | undefined): void {
  const pages = pagesToAwait(core, range, "awaitLoadSync()");
  if (pages === null) return;
  const { start, end } = pages;
  const loader = core.loader!;
  if (range != null) loader.noteUse(start, end);
  const wait = () => whileStill(() => loader.awaitLoadSync(start, end));
  if (loader.isLoaded(start, end)) wait();
  else recordAwaitSync(core, pages, wait);
}

/**
 * The range's pages, or all pages; null if they are loaded. @throws {RangeError} {DestroyedError}
 */
function pagesToAwait(
  core: FileCore,
  range: RangeLike | null | undefined,
  method: string,
): Pages | null {
  if (range == null) core.requireLive(method);
  else core.requireRange(range, method);
  if (!core.mayMissPages) {
    // Until the program is ready, loaded pages count as used, too.
    if (range != null) core.loader?.noteUse(core.startPage, core.endPage);
    return null;
  }
  if (range == null) return { start: 0, end: core.words[Word.SizePages]! };
  return { start: core.startPage, end: core.endPage };
}
