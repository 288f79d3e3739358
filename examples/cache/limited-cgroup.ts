/**
 * A cgroup with little memory, of the version that this machine allows. It is removed when the
 * program ends.
 */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export interface LimitedCgroup {
  readonly path: string;
  readonly version: 1 | 2;
  /**
   * A process that writes its id here is in the cgroup, and so are the processes that it starts.
   */
  readonly processesFile: string;
  /** Waits for its processes to end, and removes it. */
  remove(): Promise<void>;
}

/** The cgroup, or the obstacles by version. */
export function makeLimitedCgroup(
  limitBytes: number,
): LimitedCgroup | { readonly reasons: readonly string[] } {
  const reasons: string[] = [];
  for (const version of [2, 1] as const) {
    try {
      const path = version === 2 ? makeVersion2(limitBytes) : makeVersion1(limitBytes);
      return {
        path,
        version,
        processesFile: join(path, "cgroup.procs"),
        remove: () => remove(path),
      };
    } catch (error) {
      reasons.push(`version ${version}: ${(error as Error).message}`);
    }
  }
  return { reasons };
}

async function remove(path: string): Promise<void> {
  while (readFileSync(join(path, "cgroup.procs"), "utf8") !== "") await Bun.sleep(10);
  rmdirSync(path);
}

function makeVersion2(limitBytes: number): string {
  const root = mountPoint((type) => type === "cgroup2");
  const enabled = readFileSync(join(root, "cgroup.subtree_control"), "utf8").split(/\s+/);
  if (!enabled.includes("memory"))
    throw new Error(`the memory controller is not enabled in ${root}`);
  return makeDirectory(root, { "memory.max": limitBytes });
}

function makeVersion1(limitBytes: number): string {
  const root = mountPoint(
    (type, options) => type === "cgroup" && options.split(",").includes("memory"),
  );
  return makeDirectory(root, { "memory.limit_in_bytes": limitBytes });
}

function makeDirectory(root: string, settings: Record<string, number>): string {
  const path = join(root, `pgalloc-cache-${process.pid}`);
  mkdirSync(path);
  try {
    for (const [name, value] of Object.entries(settings))
      writeFileSync(join(path, name), String(value));
    return path;
  } catch (error) {
    rmdirSync(path);
    throw error;
  }
}

function mountPoint(matches: (type: string, options: string) => boolean): string {
  if (!existsSync("/proc/self/mounts")) throw new Error("there is no /proc");
  for (const line of readFileSync("/proc/self/mounts", "utf8").split("\n")) {
    const [, path, type, options] = line.split(" ");
    if (path !== undefined && matches(type!, options!)) return path;
  }
  throw new Error("no such hierarchy is mounted");
}
