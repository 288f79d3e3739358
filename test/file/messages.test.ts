/** Messages for mistakes: the mistake, the value with its type, the whole path, the cure. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createQueue } from "../../src/aio/index.ts";
import { importAll, importFrom } from "../../src/gvisor/index.ts";
import {
  loadAll,
  MemoryFile,
  PAGE_SIZE,
  prometheus,
  serveMap,
  SyscallError,
} from "../../src/index.ts";
import { openReader } from "../../src/source/index.ts";

const directory = mkdtempSync(join(tmpdir(), "pgalloc-messages-"));
const at = (name: string) => join(directory, name);
beforeAll(() => {
  chmodSync(directory, 0o755);
  mkdirSync(at("empty"));
  writeFileSync(at("a file"), "");
  symlinkSync(at("a file"), at("link"));
  symlinkSync(at("nothing"), at("dangling"));
});
afterAll(() => rmSync(directory, { recursive: true }));

/** Name, code and message of the error that the call throws or rejects with. */
async function said(call: (file: MemoryFile) => unknown): Promise<string> {
  using file = MemoryFile.create({ name: "cache" });
  try {
    await call(file);
  } catch (error) {
    const { name, code, message } = error as Error & { code?: string };
    return `${name} ${code} ${message}`;
  }
  return "nothing";
}

const any = (value: unknown): never => value as never;
const doubled = (file: MemoryFile) => {
  const range = file.allocate(PAGE_SIZE);
  file.decRef(range);
  file.decRef(range);
};
const destroyedDuring = (work: (file: MemoryFile) => Promise<unknown>) => async () => {
  const file = MemoryFile.create();
  file.allocate(PAGE_SIZE);
  const working = work(file);
  file.destroy();
  await working;
};
const NO_CHECKPOINT = ["NoCheckpointError", "ERR_NO_CHECKPOINT"];

/** Each call, and parts of its message. */
const MISTAKES: Record<string, [(file: MemoryFile) => unknown, string[]]> = {
  "a length as text": [(file) => file.allocate(any("4096")), ['"4096" (a string)']],
  "a length as bigint": [(file) => file.allocate(any(4096n)), ["4096n (a bigint)"]],
  "a part of a page": [
    (file) => {
      file.allocate(PAGE_SIZE);
      file.view({ start: 512, end: 1024 });
    },
    ["RangeError", "page", "[512, 1024)", "subarray"],
  ],
  "metrics of a number": [
    () => prometheus(any(5)),
    ["TypeError", "Expected MemoryFiles or stores, got 5"],
  ],
  "metrics of nothing": [() => prometheus(any(undefined)), ["got undefined"]],
  "a map of nothing": [() => serveMap(any(undefined)), ["Expected a MemoryFile, got undefined"]],
  "a reader of no source": [() => openReader(any({ kind: "x" }), "demand"), ["openSource()", "x"]],
  "options of files that are no function": [
    () => loadAll(at("empty"), { fileOptions: any(5) }),
    ["TypeError", "fileOptions to be a function, got 5"],
  ],
  "the same of an import": [
    () => importAll(at("empty"), { fileOptions: any(5) }),
    ["TypeError", "fileOptions to be a function, got 5"],
  ],
  "a periodic save that cannot work": [
    (file) => file.checkpointEvery(at("empty"), 10, { compression: any("gzip") }),
    ["TypeError", 'got "gzip" (a string)'],
  ],
  "a periodic save of text": [
    (file) => file.checkpointEvery(at("empty"), 10, { userData: any("x") }),
    ["TypeError", 'userData to be a Uint8Array, got "x" (a string)'],
  ],
  "a periodic save with a signal of another kind": [
    (file) => file.checkpointEvery(at("empty"), 10, { signal: any(5) }),
    ["TypeError", "signal to be an AbortSignal, got 5"],
  ],
  "options of compact as text": [
    (file) => file.compact(at("empty"), any("x")),
    ["TypeError", 'options to be an object, got "x" (a string)'],
  ],
  "two numbers for a range": [(file) => file.view(any(0)), ["{ start, end }", "got 0"]],
  "no range": [(file) => file.view(any(null)), ["{ start, end }", "got null"]],
  "a type by name": [
    (file) => file.view(file.allocate(PAGE_SIZE), any("Uint8Array")),
    ["constructor", '"Uint8Array" (a string)'],
  ],
  "a double free": [doubled, ["RangeError", "has none", "checks: true"]],
  "an option that is no object": [
    (file) => file.allocate(PAGE_SIZE, any(3)),
    ["options to be an object", "got 3"],
  ],
  "destroyed during a save": [
    destroyedDuring((file) => file.saveTo(at("ck"))),
    ["ERR_DESTROYED", "while saveTo()"],
  ],
  "a file for a handle": [(file) => MemoryFile.attach(any(file)), ["share()", "a MemoryFile"]],
  "no directory": [() => MemoryFile.loadFrom(at("none")), [...NO_CHECKPOINT, at("none")]],
  "an empty directory": [() => MemoryFile.loadFrom(at("empty")), [...NO_CHECKPOINT, at("empty")]],
  "no directory for several": [() => loadAll(at("none")), NO_CHECKPOINT],
  "no directory of gVisor's": [() => importFrom(at("none")), NO_CHECKPOINT],
  "an empty directory for gVisor": [() => importAll(at("empty")), NO_CHECKPOINT],
  "a file for a directory": [
    (file) => file.saveTo(at("a file")),
    ["ENOTDIR", at("a file"), "not a directory"],
  ],
  "a dangling link": [(file) => file.saveTo(at("dangling")), [at("dangling"), "link to nothing"]],
  "a link as path": [
    () => MemoryFile.create({ path: at("link") }),
    ["ELOOP", at("link"), "symbolic link"],
  ],
  "a directory as path": [
    () => MemoryFile.create({ path: at("empty") }),
    ["EISDIR", at("empty"), "it is a directory"],
  ],
  "a URL as path": [() => MemoryFile.create({ path: any(new URL("file:///x")) }), ["a URL"]],
  "an unknown queue": [() => createQueue(any("fast")), ['"uring"', '"fast" (a string)']],
};

test.each(Object.entries(MISTAKES))("%s", async (_, [call, parts]) => {
  const message = await said(call);
  for (const part of parts) expect(message).toContain(part);
  expect(message).not.toMatch(/\[object |undefined is not|\.$/);
});

const isRoot = process.getuid!() === 0;

test.skipIf(!isRoot)("loadFrom names the path of a checkpoint's file that it may not read", () => {
  const place = at("denied");
  const run = (program: string, ...prefix: string[]) =>
    Bun.spawnSync([...prefix, process.execPath, "-e", program], {
      cwd: directory,
    }).stdout.toString();
  const library = JSON.stringify(join(import.meta.dir, "../../src/index.ts"));
  mkdirSync(place, { mode: 0o755 });
  writeFileSync(join(place, "meta"), "x", { mode: 0o000 });
  const program = `
    const { MemoryFile } = await import(${library});
    const said = (error) => console.log(error.message);
    await MemoryFile.loadFrom(${JSON.stringify(place)}).catch(said);`;
  const asNobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
  if (run("console.log(1)", ...asNobody) !== "1\n") return;
  expect(run(program, ...asNobody)).toContain(join(place, "meta"));
});

test("allocate names the limit on the size of files that stops it", () => {
  const library = JSON.stringify(join(import.meta.dir, "../../src/index.ts"));
  const program = `
    const { MemoryFile } = await import(${library});
    try { MemoryFile.create().allocate(4096); } catch (error) { console.log(error.message); }`;
  const child = Bun.spawnSync([
    "bash",
    "-c",
    'ulimit -f 1000; exec "$0" -e "$1"',
    process.execPath,
    program,
  ]);
  expect(child.stdout.toString()).toMatch(/EFBIG.*ulimit -f/);
});

test("a SyscallError has the detail of the call, and what to do", () => {
  const error = new SyscallError("mmap", 12, undefined, "4096 bytes at offset 0");
  expect(error.message).toStartWith("ENOMEM: mmap failed: 4096 bytes at offset 0: there is no ");
  expect(error.message).toContain("see `ulimit -v`");
  expect(new SyscallError("read", 5, "x", "at 7").message).toBe("EIO: read failed for 'x': at 7");
});
