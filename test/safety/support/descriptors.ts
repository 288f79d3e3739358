/**
 * Descriptors that only the library can have opened: memory files, and files and directories with a
 * name. The runtime has others, and opens the modules of a Worker that starts.
 */
import { expect } from "bun:test";
import { readdirSync, readlinkSync } from "node:fs";
import { resolve } from "node:path";

const repository = resolve(import.meta.dir, "../../..");
const isModule = (path: string) => path.startsWith(`${repository}/`) && /\.[jt]s$/.test(path);
/** The runtime keeps large modules there, transpiled. */
const isTranspiled = (path: string) => /\/@t@\/[0-9a-f]+\.pile( \(deleted\))?$/.test(path);

export function namedDescriptors(): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`);
      const isNamed = target.startsWith("/") && !/^\/(dev|proc)\//.test(target);
      return isNamed && !isModule(target) && !isTranspiled(target) ? [target] : [];
    } catch (error) {
      // The descriptor that listed the directory is closed by now.
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
      throw error;
    }
  });
}

/**
 * Expects that every open descriptor was in `before`. Waits for that, because a destroyed file
 * closes its descriptors soon, also a file of an earlier test that `before` still lists.
 */
export async function expectDescriptors(before: readonly string[]): Promise<void> {
  let beyond = descriptorsBeyond(before);
  for (let i = 0; i < 400 && beyond.length > 0; i++) {
    await Bun.sleep(5);
    beyond = descriptorsBeyond(before);
  }
  expect(beyond).toEqual([]);
}

function descriptorsBeyond(before: readonly string[]): string[] {
  const left = [...before];
  return namedDescriptors().filter((name) => {
    const at = left.indexOf(name);
    if (at >= 0) left.splice(at, 1);
    return at < 0;
  });
}
