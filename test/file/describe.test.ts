/** A MemoryFile in console.log, in template strings and in copies. */
import { expect, test } from "bun:test";
import { inspect } from "node:util";
import { DestroyedError, MemoryFile, PAGE_SIZE } from "../../src/index.ts";

test("inspect shows name, sizes and state in one line, also after destroy", () => {
  const file = MemoryFile.create({ name: "cache", limitBytes: 64 * 2 ** 20 });
  file.allocate(3 * PAGE_SIZE);
  const line = 'MemoryFile "cache" { 12 KiB of 64 MiB in use, 1 GiB mapped }';
  expect(inspect(file)).toBe(line);
  expect(Bun.inspect(file)).toBe(line);
  expect(`${file}`).toBe(line);
  expect(String(file)).toBe(line);
  expect(file.toString()).toBe(line);
  const handle = file.share();
  expect(Bun.inspect(handle)).toBe('MemoryFileHandle of "cache"');
  expect(inspect(file)).toContain("shared");
  file.destroy();
  expect(inspect(file)).toBe('MemoryFile "cache" { destroyed }');
  expect(`${file}`).toBe('MemoryFile "cache" { destroyed }');
  expect(() => file.toString()).toThrow(DestroyedError);
});

test("dump lists a line for each run of equal pages", () => {
  using file = MemoryFile.create();
  file.allocate(PAGE_SIZE, { kind: 7, group: 9 });
  expect(file.dump().split("\n")[0]).toBe(`[0, ${PAGE_SIZE}) used refs=1 kind=7 group=9`);
});

test("structuredClone and postMessage of a MemoryFile throw and name share()", () => {
  using file = MemoryFile.create();
  expect(() => structuredClone(file)).toThrow(/share\(\)/);
  expect(() => structuredClone({ nested: [file] })).toThrow(/share\(\)/);
  const { port1 } = new MessageChannel();
  expect(() => port1.postMessage(file)).toThrow(/share\(\)/);
  port1.close();
  // Comparing and spreading still work.
  expect(file).toEqual(file);
  expect({ ...file }.name).toBe("pgalloc");
});

test("new MemoryFile throws and names create()", () => {
  expect(() => new (MemoryFile as unknown as new () => object)()).toThrow(/MemoryFile\.create/);
});
