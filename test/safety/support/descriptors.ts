/** Descriptors that could only be ours: memory files, and files and directories with a name. The runtime's are others. */
import { expect } from "bun:test";
import { readdirSync, readlinkSync } from "node:fs";

export function namedDescriptors(): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`);
      return target.startsWith("/") && !target.startsWith("/dev/") && !target.startsWith("/proc/")
        ? [target]
        : [];
    } catch (error) {
      // The descriptor that listed the directory is closed by now.
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
      throw error;
    }
  });
}

/** Waits until there are no more of them than `before`: what was destroyed a moment ago closes its files soon. */
export async function expectDescriptors(before: readonly string[]): Promise<void> {
  for (let i = 0; i < 400 && namedDescriptors().length > before.length; i++) await Bun.sleep(5);
  expect(namedDescriptors().sort()).toEqual(before.toSorted());
}
