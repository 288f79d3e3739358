/**
 * Descriptors that can only be ours: memory files, and files and directories with a name. The
 * runtime has others.
 */
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

/**
 * Expects that nothing is open that was not in `before`. Waits for that: a file that was destroyed
 * closes its descriptors soon, also one of an earlier test that `before` still lists.
 */
export async function expectDescriptors(before: readonly string[]): Promise<void> {
  for (let i = 0; i < 400 && descriptorsBeyond(before).length > 0; i++) await Bun.sleep(5);
  expect(descriptorsBeyond(before)).toEqual([]);
}

function descriptorsBeyond(before: readonly string[]): string[] {
  const left = [...before];
  return namedDescriptors().filter((name) => {
    const at = left.indexOf(name);
    if (at >= 0) left.splice(at, 1);
    return at < 0;
  });
}
