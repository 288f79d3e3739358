/**
 * A program that saves one checkpoint of stamped pages, to be killed or starved meanwhile:
 * DIRECTORY PAGES VERSION [LIMIT], the last being the most bytes that a file may grow to
 * (RLIMIT_FSIZE).
 */
import { stampedFile } from "./stamped.ts";

const [directory, pages, version, limit] = process.argv.slice(2);
using file = stampedFile(Number(pages), Number(version));
if (limit !== undefined) {
  const { exitCode } = Bun.spawnSync(["prlimit", "--pid", String(process.pid), `--fsize=${limit}`]);
  if (exitCode !== 0) throw new Error(`prlimit ended with exit code ${exitCode}`);
}
try {
  await file.saveTo(directory!, { userData: new Uint8Array([Number(version)]) });
  console.log("saved");
} catch (error) {
  const { name, code } = error as { name: string; code?: string };
  console.log(`${name} ${code}`);
}
