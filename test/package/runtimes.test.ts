/**
 * The package on other systems and runtimes: importing works, and the first call says what is
 * missing.
 */
import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dir, "../..");

function run(command: string[], cwd = root): { exitCode: number; output: string } {
  const child = Bun.spawnSync(command, { cwd, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  return { exitCode: child.exitCode, output: `${child.stdout}${child.stderr}` };
}

test("the stubs export the names of the sources", () => {
  expect(run([process.execPath, "scripts/stubs.ts", "--check"])).toEqual({
    exitCode: 0,
    output: "",
  });
});

test.each(["darwin", "win32"])(
  "Bun on %s imports every entry, and calls throw UnsupportedError",
  (platform) => {
    const program = `
    Object.defineProperty(process, "platform", { value: "${platform}" });
    const { exports } = await Bun.file("package.json").json();
    for (const target of Object.values(exports))
      if (target.bun) await import(process.cwd() + target.bun.slice(1));
    await import(process.cwd() + exports["./worker"].slice(1));
    const { MemoryFile, PAGE_SIZE } = await import(process.cwd() + "/src/index.ts");
    const { SegmentSet } = await import(process.cwd() + "/src/segment/index.ts");
    const { createQueue } = await import(process.cwd() + "/src/aio/index.ts");
    const set = SegmentSet.create(100, 2);
    set.extend(10, 1);
    console.log(PAGE_SIZE, set.firstFit(1, 10));
    for (const call of [
      () => MemoryFile.create(),
      () => MemoryFile.loadFrom("/tmp"),
      () => createQueue(),
    ])
      try {
        await call();
      } catch (error) {
        console.log(error.code, error.message);
      }
    process.exit(0);`;
    const refusal = `ERR_UNSUPPORTED pgalloc needs Linux; this is ${platform}\n`;
    expect(run([process.execPath, "-e", program])).toEqual({
      exitCode: 0,
      output: `4096 0\n${refusal.repeat(3)}`,
    });
  },
);

test.skipIf(Bun.which("node") === null)("Node gets stubs that name Bun", () => {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-node-"));
  try {
    mkdirSync(join(directory, "node_modules"));
    symlinkSync(root, join(directory, "node_modules/pgalloc"));
    writeFileSync(
      join(directory, "program.mjs"),
      `
      import { DestroyedError, MemoryFile, PAGE_SIZE } from "pgalloc";
      import { SegmentSet } from "pgalloc/segment";
      import { Store } from "pgalloc/data";
      const isError = new DestroyedError("x", "y") instanceof Error;
      console.log(PAGE_SIZE, isError, {} instanceof MemoryFile);
      for (const call of [
        () => MemoryFile.create(),
        () => new MemoryFile(),
        () => Store.open("x"),
        () => SegmentSet.create(1, 1),
      ])
        try {
          call();
        } catch (error) {
          console.log(error.code, /needs Bun .* on Linux.* Node.js v/.test(error.message));
        }`,
    );
    expect(run(["node", "program.mjs"], directory)).toEqual({
      exitCode: 0,
      output: `4096 true false\n${"ERR_UNSUPPORTED true\n".repeat(4)}`,
    });
  } finally {
    rmSync(directory, { recursive: true });
  }
});
