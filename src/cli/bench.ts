/** `pgalloc bench`: runs the benches, which are a program of their own (bench/run.ts). */
import { join } from "node:path";

export async function bench(args: string[]): Promise<number> {
  const program = join(import.meta.dir, "../../bench/run.ts");
  if (!isInstalled("mitata")) {
    console.error(
      "pgalloc bench measures with mitata, an optional dependency that is not installed: bun add " +
        "--dev mitata",
    );
    return 1;
  }
  const child = Bun.spawn([process.execPath, program, ...args], {
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit",
  });
  return await child.exited;
}

function isInstalled(name: string): boolean {
  try {
    Bun.resolveSync(name, import.meta.dir);
    return true;
  } catch (error) {
    if (
      (error as { code?: string }).code === "MODULE_NOT_FOUND" ||
      (error as Error).name === "ResolveMessage"
    )
      return false;
    throw error;
  }
}
