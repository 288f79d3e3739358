/**
 * Another program in the same cgroup: writes a file that does not fit into the rest of the memory,
 * and reads it repeatedly. The kernel must find pages for it each time. It ends at SIGTERM, or
 * when its parent is gone.
 *
 *   bun neighbour.ts FILE MEBIBYTES
 */
import { closeSync, fsyncSync, openSync, readSync, unlinkSync, writeSync } from "node:fs";

const [path, mebibytes] = [process.argv[2]!, Number(process.argv[3])];
const block = new Uint8Array(2 ** 20).fill(1);
const fd = openSync(path, "w+");
unlinkSync(path);
let readMebibytes = 0;
const parent = process.ppid;
process.on("SIGTERM", () => {
  closeSync(fd);
  console.log(readMebibytes);
  process.exit(0);
});
for (let i = 0; i < mebibytes; i++) writeSync(fd, block, 0, block.length, i * block.length);
fsyncSync(fd);
for (;;) {
  for (let i = 0; i < mebibytes; i++) {
    readSync(fd, block, 0, block.length, i * block.length);
    readMebibytes++;
    if (i % 16 !== 0) continue;
    // Signals arrive between turns of the event loop.
    await new Promise((resolve) => setImmediate(resolve));
    if (process.ppid !== parent) process.exit(1);
  }
}
