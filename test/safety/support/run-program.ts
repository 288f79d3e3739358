/** Programs that may kill their process, run in one of their own. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const library = join(import.meta.dir, "../../../src/index.ts");
const ffi = join(import.meta.dir, "../../../ffi/index.ts");

/**
 * Runs a program's text, in which "pgalloc" and "ffi" can be imported and DIRECTORY is a folder of
 * its own.
 */
export async function runProgram(
  source: string,
  files: Readonly<Record<string, string>> = {},
): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-program-"));
  const place = (text: string) =>
    text
      .replaceAll('"pgalloc"', JSON.stringify(library))
      .replaceAll('"ffi"', JSON.stringify(ffi))
      .replaceAll("DIRECTORY", directory);
  try {
    for (const [name, text] of Object.entries({ ...files, "program.ts": source }))
      writeFileSync(join(directory, name), place(text));
    const child = Bun.spawn([process.execPath, join(directory, "program.ts")], {
      stdout: "pipe",
      stderr: "pipe",
      timeout: 30_000,
    });
    const [stdout, stderr, exitCode] = await Promise.all([
      child.stdout.text(),
      child.stderr.text(),
      child.exited,
    ]);
    return `${child.signalCode ?? exitCode} ${stdout}${stderr}`;
  } finally {
    rmSync(directory, { recursive: true });
  }
}
