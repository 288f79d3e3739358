/** Files that are collected without destroy() are found, released, and reported once. */
import { expect, test } from "bun:test";
import { runProgram } from "../safety/support/run-program.ts";

const HEAD = `
  import { readdirSync, readlinkSync } from "node:fs";
  import { MemoryFile, PAGE_SIZE } from "pgalloc";
  const isLost = (fd) => {
    try {
      return readlinkSync("/proc/self/fd/" + fd).includes("memfd:lost");
    } catch {
      return false;
    }
  };
  const memfds = () => readdirSync("/proc/self/fd").filter(isLost).length;
  const warnings = [];
  process.on("warning", (warning) => warnings.push(warning.code));
  const collect = async () => {
    for (let i = 0; i < 15; i++) { Bun.gc(true); await Bun.sleep(20); }
  };
  const options = { name: "lost" };
`;

test("forgotten files are freed with their descriptors, and one warning is given", async () => {
  const program = `${HEAD}
    for (let i = 0; i < 30; i++) {
      const file = MemoryFile.create(options);
      file.view(file.allocate(PAGE_SIZE)).fill(1);
      await Bun.sleep(0);
    }
    await collect();
    console.log(memfds() < 10, warnings.join());
    process.exit(0);`;
  expect(await runProgram(program)).toStartWith("0 true PGALLOC_FORGOTTEN\n");
});

test("a file is kept while a view, a subarray, a save or a handle may use it", async () => {
  const program = `${HEAD}
    const viewOf = () => {
      const file = MemoryFile.create(options);
      return file.view(file.allocate(PAGE_SIZE)).fill(1);
    };
    const view = viewOf();
    const part = (() => viewOf().subarray(8, 16))();
    const handle = (() => MemoryFile.create(options).share())();
    let left = 0;
    const saves = [1, 2].map((i) => {
      const file = MemoryFile.create(options);
      file.view(file.allocate(64 * PAGE_SIZE)).fill(i);
      return file.saveTo("DIRECTORY/" + i).finally(() => left++);
    });
    await collect();
    await Promise.all(saves);
    console.log(view.length / PAGE_SIZE, view[7], part.length, part[0], memfds() >= 3, left);
    const file = MemoryFile.attach(handle);
    file.destroy();
    using loaded = await MemoryFile.loadFrom("DIRECTORY/2");
    console.log(loaded.view({ start: 0, end: PAGE_SIZE })[0], view[0] + part[1]);
    process.exit(0);`;
  expect(await runProgram(program)).toStartWith("0 1 1 8 1 true 2\n2 2\n");
});

test("destroyed files are not reported", async () => {
  const program = `${HEAD}
    for (let i = 0; i < 20; i++) {
      using file = MemoryFile.create(options);
      file.allocate(PAGE_SIZE);
    }
    await collect();
    console.log(memfds(), warnings.length);
    process.exit(0);`;
  expect(await runProgram(program)).toBe("0 0 0\n");
});
