/** One of the server processes: `bun server.ts DIRECTORY none|copied|mapped PORT`. */
import { MemoryFile } from "pgalloc";
import { readEntry } from "./index-file.ts";

const [directory, how, port] = process.argv.slice(2) as [string, string, string];
const file =
  how === "none" ? null : await MemoryFile.loadFrom(directory, { mapped: how === "mapped" });

Bun.serve({
  port: Number(port),
  reusePort: true,
  fetch(request) {
    const entry = Number(new URL(request.url).pathname.slice(1));
    const body = file === null ? "" : readEntry(file, entry);
    return new Response(body, { headers: { "x-process": `${process.pid}` } });
  },
});
console.log("ready");
