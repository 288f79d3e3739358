/** A process that is killed during an export, at the n-th file that it renames or removes. */
import { setFaultHook } from "../../../ffi/index.ts";
import { exportTo } from "../../../src/gvisor/index.ts";
import { MemoryFile, PAGE_SIZE } from "../../../src/index.ts";

const [directory, killAt] = process.argv.slice(2) as [string, string];
const file = MemoryFile.create();
file.view(file.allocate(2 * PAGE_SIZE)).fill(2);
let calls = 0;
setFaultHook((syscall) => {
  if ((syscall === "renameat" || syscall === "unlinkat") && calls++ === Number(killAt))
    process.kill(process.pid, "SIGKILL");
  return undefined;
});
await exportTo(file, directory);
file.destroy();
