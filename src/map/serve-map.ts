/** `serveMap`: the page map of running files. Loads the server on first use. */
import { showValue } from "../../ffi/index.ts";
import { type Nullable, readOptions, toList } from "../core/options.ts";
import { onUse } from "../errors/lazy-import.ts";
import { coreOf, MemoryFile } from "../file/memory-file.ts";
import type { ServeMapOptions, MapServer } from "./serve.ts";

const importServer = onUse(() => import("./serve.ts"));

/**
 * Serves a page that shows the file live: which pages are used, loaded or waste; the slowest waits;
 * kinds, groups and references. For development: it answers on the loopback interface by default.
 *
 * @returns when the server listens
 * @throws {TypeError} if `file` is not a MemoryFile
 * @throws {DestroyedError}
 */
export async function serveMap(
  files: MemoryFile | Iterable<MemoryFile>,
  options?: Nullable<ServeMapOptions> | null,
): Promise<MapServer> {
  const cores = toList<unknown>(files).map((file) => {
    if (!(file instanceof MemoryFile))
      throw new TypeError(`Expected a MemoryFile, got ${showValue(file)}`);
    const core = coreOf(file);
    core.requireLive("serveMap()");
    return core;
  });
  const { serveCores } = await importServer();
  return await serveCores(cores, readOptions<ServeMapOptions>(options));
}
