/** `serveMap`: the page map of running files. Loads the server on first use. */
import { checkInteger, showValue } from "../../ffi/index.ts";
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
  const { port = 0, hostname = "127.0.0.1", title } = readOptions<ServeMapOptions>(options);
  checkInteger("port", port, 0, 65_535);
  for (const [name, value] of Object.entries({ hostname, title }))
    if (value !== undefined && typeof value !== "string")
      throw new TypeError(`Expected ${name} to be a string, got ${showValue(value)}`);
  const { serveCores } = await importServer();
  return await serveCores(cores, { port, hostname, title });
}
