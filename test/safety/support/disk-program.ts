/**
 * A program whose memory is a file on a disk that is too small for it: DISK CHECKPOINT. It must get
 * errors, and not be killed (touching a mapped page for which the disk has no room is a SIGBUS).
 * Prints an error's code for each attempt.
 */
import { MemoryFile, PAGE_SIZE, PathInUseError } from "../../../src/index.ts";

const [disk, checkpoint] = process.argv.slice(2) as [string, string];
const LENGTH_BYTES = 4 * 2 ** 20;

function codeOf(work: () => unknown): string {
  try {
    work();
    return "done";
  } catch (error) {
    return (error as { code: string }).code;
  }
}

/** Threads of the earlier file may still be leaving. Its path is free when they have left. */
async function loadOnDisk(queue: "workers" | "inline"): Promise<MemoryFile> {
  for (;;) {
    try {
      const path = `${disk}/memory`;
      return await MemoryFile.loadFrom(checkpoint, { path, background: true, queue });
    } catch (error) {
      if (!(error instanceof PathInUseError)) throw error;
      await Bun.sleep(1);
    }
  }
}

const file = MemoryFile.create({ path: `${disk}/memory` });
for (const mode of ["commit", "writePopulate"] as const) {
  console.log(
    mode,
    codeOf(() => file.allocate(LENGTH_BYTES, { mode })),
    file.allocatedBytes,
  );
}
await file.released();
// After all that, smaller allocations still work.
const small = file.allocate(16 * PAGE_SIZE, { mode: "commit" });
file.view(small).fill(1);
console.log(
  "small",
  file.view(small).every((byte) => byte === 1),
);
file.destroy();

for (const queue of ["workers", "inline"] as const) {
  const back = await loadOnDisk(queue);
  const failure = await back.awaitLoad().catch((error: { code: string }) => error.code);
  while (back.isLoading) await Bun.sleep(1);
  const { loadedBytes, failedBytes, totalBytes } = back.loadStats();
  console.log(
    queue,
    failure,
    loadedBytes > 0,
    failedBytes > 0,
    loadedBytes + failedBytes === totalBytes,
  );
  back.destroy();
}
