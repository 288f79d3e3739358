/**
 * The package as its user gets it: packed, unpacked beside a program, type-checked by a strict
 * compiler without the repository's settings, and run. Every entry of `exports` must resolve for
 * both.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dir, "../..");
const directory = mkdtempSync(join(tmpdir(), "pgalloc-consumer-"));
const unpacked = join(directory, "node_modules/pgalloc");
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
  files: string[];
  exports: Record<string, { types: string; bun: string; default: string } | string>;
};
const entries = Object.entries(manifest.exports).flatMap(([name, target]) =>
  typeof target === "string" ? [] : [{ specifier: `pgalloc${name.slice(1)}`, ...target }],
);

afterAll(() => rmSync(directory, { recursive: true }));

function run(command: string[], cwd: string): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, {
    cwd,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  if (exitCode !== 0)
    throw new Error(`${command.join(" ")} exited with ${exitCode}:\n${stdout}${stderr}`);
  return stdout.toString();
}

test("the package contains the files of every entry", () => {
  const packed = JSON.parse(
    run(["npm", "pack", "--json", "--silent", "--pack-destination", directory], root),
  ) as unknown;
  // A list of one in npm 10 and 11, an object by name in later ones.
  const [{ filename }] = Object.values(packed as Record<string, { filename: string }>) as [
    { filename: string },
  ];
  mkdirSync(unpacked, { recursive: true });
  run(
    ["tar", "-xzf", join(directory, filename), "-C", unpacked, "--strip-components=1"],
    directory,
  );
  for (const { types, bun, default: stub } of entries)
    for (const path of [types, bun, stub])
      expect([path, existsSync(join(unpacked, path))]).toEqual([path, true]);
  expect(existsSync(join(unpacked, "test"))).toBe(false);
});

test("the package type-checks and runs in a strict program without our settings", () => {
  for (const name of ["bun-types", "@types", "undici-types"]) {
    symlinkSync(join(root, "node_modules", name), join(directory, "node_modules", name));
  }
  const imports = entries
    .map(({ specifier }, i) => `import * as entry${i} from "${specifier}";`)
    .join("\n");
  const uses = entries.map((_, i) => `console.log(Object.keys(entry${i}).length > 0);`).join("\n");
  writeFileSync(
    join(directory, "program.ts"),
    `${imports}
import { type FileRange, MemoryFile } from "pgalloc";
const file: MemoryFile = MemoryFile.create();
const range: FileRange = file.allocate(4096 * 16);
const floats: Float32Array = file.view(range, Float32Array);
floats[0] = 1.5;
console.log(floats.length, floats[0]);
file.destroy();
${uses}
`,
  );
  const compilerOptions = {
    strict: true,
    noEmit: true,
    target: "ESNext",
    module: "ESNext",
    moduleResolution: "bundler",
    types: ["bun-types"],
    skipLibCheck: true,
  };
  writeFileSync(
    join(directory, "tsconfig.json"),
    JSON.stringify({ compilerOptions, files: ["program.ts"] }),
  );
  writeFileSync(
    join(directory, "package.json"),
    JSON.stringify({ name: "consumer", type: "module" }),
  );
  run([join(root, "node_modules/.bin/tsc"), "-p", "."], directory);
  expect(run([process.execPath, "program.ts"], directory)).toBe(
    `16384 1.5\n${"true\n".repeat(entries.length)}`,
  );
});

test("the package's types need no other package, and pass without skipLibCheck", () => {
  const bare = join(directory, "bare");
  mkdirSync(bare);
  const imports = entries
    .map(({ specifier }, i) => `export * as entry${i} from "${specifier}";`)
    .join("\n");
  writeFileSync(join(bare, "program.ts"), imports);
  const compilerOptions = {
    strict: true,
    exactOptionalPropertyTypes: true,
    noEmit: true,
    target: "ESNext",
    module: "ESNext",
    moduleResolution: "bundler",
    types: [],
    skipLibCheck: false,
  };
  writeFileSync(
    join(bare, "tsconfig.json"),
    JSON.stringify({ compilerOptions, files: ["program.ts"] }),
  );
  run([join(root, "node_modules/.bin/tsc"), "-p", "."], bare);
});

test("the package's command line tool runs, and names a missing dependency of the benches", () => {
  const tool = join(unpacked, "src/cli/main.ts");
  expect(run([process.execPath, tool, "--help"], directory)).toContain("verify DIR");
  const { exitCode, stderr } = Bun.spawnSync([process.execPath, tool, "bench", "--smoke"], {
    cwd: directory,
  });
  expect([exitCode, stderr.toString()]).toEqual([
    1,
    expect.stringContaining("bun add --dev mitata"),
  ]);
});

describe("a program that is bundled", () => {
  // No top-level await: bytecode without an executable is CommonJS.
  const program = `
import { MemoryFile } from "pgalloc";
async function main(): Promise<void> {
  const file = MemoryFile.create();
  const range = file.allocate(2 ** 24);
  file.view(range, Uint32Array).fill(7);
  await file.saveTo("checkpoint");
  file.destroy();
  const back = await MemoryFile.loadFrom("checkpoint", { background: true, queue: "workers" });
  await back.awaitLoad();
  console.log(back.loadStats().loadedBytes, back.view(range, Uint32Array).at(-1));
  back.destroy();
}
main().catch((error) => {
  console.log(error.name, error.message);
  process.exitCode = 1;
});
`;
  const entries = ["service.ts", "pgalloc/worker"];
  const build = [process.execPath, "build", "--entry-naming", "[name].[ext]"];

  beforeAll(() => writeFileSync(join(directory, "service.ts"), program));

  /**
   * A deployed program has no package beside it; the package that it was built from is moved away.
   */
  function withoutSources(work: () => string): string {
    renameSync(unpacked, `${unpacked}-away`);
    try {
      return work();
    } finally {
      renameSync(`${unpacked}-away`, unpacked);
    }
  }

  test("restores in its Workers as a bundle, also with bytecode", () => {
    for (const flags of [["--target=bun"], ["--target=bun", "--bytecode", "--minify"]]) {
      run([...build, ...flags, "--outdir", "built", ...entries], directory);
      const moved = mkdtempSync(join(tmpdir(), "pgalloc-built-"));
      run(["sh", "-c", `mv built/* ${moved}`], directory);
      expect(withoutSources(() => run([process.execPath, "service.js"], moved))).toBe(
        "16777216 7\n",
      );
      rmSync(moved, { recursive: true });
    }
  });

  test("restores in its Workers as an executable, also with bytecode", () => {
    for (const flags of [[], ["--bytecode"], ["--bytecode", "--format=esm"]]) {
      run([...build, "--compile", ...flags, "--outfile", "service", ...entries], directory);
      expect(withoutSources(() => run([join(directory, "service")], directory))).toBe(
        "16777216 7\n",
      );
    }
  });

  test("names the missing entry point of the Workers", () => {
    run([...build, "--target=bun", "--outdir", "built", "service.ts"], directory);
    const { exitCode, stdout } = Bun.spawnSync([process.execPath, "built/service.js"], {
      cwd: directory,
    });
    expect([exitCode, stdout.toString()]).toEqual([
      1,
      expect.stringMatching(/^WorkerNotFoundError .*pgalloc\/worker/),
    ]);
  });

  test("names the missing entry point in a queue of Workers, and starts no more", () => {
    const reads = `
import { closeSync, openSync } from "node:fs";
import { ptr } from "bun:ffi";
import { createQueue } from "pgalloc/aio";
let started = 0;
globalThis.Worker = class extends Worker {
  constructor(url) {
    super(url);
    started++;
  }
};
const bytes = new Uint8Array(4096);
const fd = openSync("package.json");
const queue = createQueue("workers", { capacity: 1 });
queue.read(1, fd, ptr(bytes), bytes.length, 0);
for (let i = 0; i < 2; i++) await queue.waitAsync(1).catch((error) => console.log(error.name));
await Bun.sleep(100);
console.log(started);
await queue.destroy();
closeSync(fd);
`;
    writeFileSync(join(directory, "reads.ts"), reads);
    run([...build, "--target=bun", "--outdir", "built", "reads.ts"], directory);
    expect(run([process.execPath, "built/reads.js"], directory)).toBe(
      "WorkerNotFoundError\nWorkerNotFoundError\n1\n",
    );
  });
});
