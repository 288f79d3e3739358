/**
 * Finds MemoryFiles that the program forgot: collected without `destroy()` or `using`. Their
 * memory, descriptor and address space are freed, and a process warning reports the first of them.
 *
 * A file is destroyed only when nothing can reach its memory any more: all its MemoryFile objects
 * are collected, none of its views is alive, and no load, save or other work is under way. A shared
 * file is never destroyed here, because a handle to it may be on its way to another thread.
 *
 * The registry is a backstop: the collector decides when, or whether, it runs.
 */
import { Word } from "../control/control.ts";
import type { FileCore } from "../core/core.ts";
import { describe } from "../core/parts.ts";

const FIRST_LOOK_MS = 10;
const LAST_LOOK_MS = 1000;

const registry = new FinalizationRegistry(release);
/** MemoryFile objects of each core. */
const holders = new WeakMap<FileCore, number>();
let hasWarned = false;

/** Called with each new MemoryFile object over the core. */
export function watchForgotten(file: object, core: FileCore): void {
  holders.set(core, (holders.get(core) ?? 0) + 1);
  registry.register(file, core);
}

function release(core: FileCore): void {
  const left = holders.get(core)! - 1;
  holders.set(core, left);
  if (left === 0) look(core, FIRST_LOOK_MS);
}

/** Destroys the file if nothing can reach it. Otherwise looks again later. */
function look(core: FileCore, waitMs: number): void {
  const { words } = core;
  if (core.isDetached || words[Word.Shared] !== 0 || holders.get(core)! > 0) return;
  if (core.isBusy || core.views.hasLive()) {
    setTimeout(() => look(core, Math.min(2 * waitMs, LAST_LOOK_MS)), waitMs).unref();
    return;
  }
  if (!hasWarned) {
    hasWarned = true;
    process.emitWarning(
      `${describe(core.name)} was garbage collected without destroy(); call destroy(), or ` +
        "declare files with `using` (reported once, for the first such file)",
      { type: "MemoryFileWarning", code: "PGALLOC_FORGOTTEN" },
    );
  }
  core.destroy();
}
