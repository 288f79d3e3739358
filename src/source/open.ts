/**
 * Opens a PageSource of any kind. A new kind has a case in each function here and in describe.ts.
 * Each reading thread imports this file, and only the code of the kind that it opens.
 */
import { showValue } from "../../ffi/index.ts";
import type { RingRegistry } from "../aio/uring-queue.ts";
import { onUse } from "../errors/lazy-import.ts";
import { openFileReader } from "./file-source.ts";
import type { ModuleSource, PageSource } from "./description.ts";
import type { RemoteSource } from "./remote-source.ts";
import type { ReaderUse, SourceReader } from "./reader.ts";

const importModule = onUse(() => import("./module-source.ts"));
const importRemote = onUse(() => import("./remote-source.ts"));

/**
 * Opens the source for this thread. `rings` records io_uring rings, which outlive a thread that
 * dies.
 *
 * @throws {TypeError} if the module is not a page source
 * @throws the errors of opening it
 */
export function openReader(
  source: PageSource,
  use: ReaderUse,
  rings?: RingRegistry,
): SourceReader | Promise<SourceReader> {
  switch (source?.kind) {
    case "file":
      return openFileReader(source, use, rings);
    case "module":
      return openModule(source, use);
    case "remote":
      return openRemote(source, use);
    default:
      throw new TypeError(
        'Expected a page source, the result of openSource() or { kind: "module", … }, got ' +
          showValue(source),
      );
  }
}

async function openModule(source: ModuleSource, use: ReaderUse): Promise<SourceReader> {
  const { openModuleReader } = await importModule();
  return openModuleReader(source, use);
}

/** Imported on first use: a program without remote places does not load it. */
async function openRemote(source: RemoteSource, use: ReaderUse): Promise<SourceReader> {
  const { openRemoteReader } = await importRemote();
  return openRemoteReader(source, use);
}

/** Opens a source whose readers block. Precondition: `canBlock`. */
export function openBlockingReader(source: PageSource, use: ReaderUse): SourceReader {
  if (source.kind !== "file") throw new Error(`Cannot read from a ${source.kind} without waiting`);
  return openFileReader(source, use, undefined);
}

/** True if any thread can read from the source without its event loop. */
export function canBlock(source: PageSource): boolean {
  return source.kind === "file";
}
