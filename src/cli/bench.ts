/** `pgalloc bench`: hands over to the benches, which are a program of their own (bench/run.ts). */
import { join } from "node:path";

export async function bench(args: string[]): Promise<number> {
  const program = join(import.meta.dir, "../../bench/run.ts");
  const child = Bun.spawn([process.execPath, program, ...args], { stdin: "ignore", stdout: "inherit", stderr: "inherit" });
  return await child.exited;
}
