import { expect, test } from "bun:test";
import { closeSync, openSync, readdirSync, readFileSync } from "node:fs";
import { readAheadBytes, readKernelFile, SyscallError, syscallCounts } from "../../ffi/index.ts";

test("readKernelFile reads a whole file, and counts no call of the program", () => {
  const counts = JSON.stringify(syscallCounts);
  const smaps = readKernelFile("/proc/self/smaps").toString("latin1");
  expect(readKernelFile("/proc/self/comm").toString()).toBe(
    readFileSync("/proc/self/comm", "utf8"),
  );
  expect(JSON.stringify(syscallCounts)).toBe(counts);
  expect(smaps.length).toBeGreaterThan(8192);
  expect(smaps).toEndWith("\n");
  expect(smaps).toContain("[stack]");
});

test("readKernelFile names a missing file, and leaves nothing open", () => {
  const descriptors = () =>
    readKernelFile("/proc/self/status")
      .toString()
      .match(/^FDSize:.*$/m)![0];
  const before = descriptors();
  for (let i = 0; i < 300; i++) {
    expect(() => readKernelFile("/proc/self/task/1/nothing")).toThrow(SyscallError);
    readKernelFile("/proc/self/stat");
  }
  expect(descriptors()).toBe(before);
  expect(() => readKernelFile("/proc/none")).toThrow("ENOENT: open failed for '/proc/none'");
});

test("readAheadBytes is what the file's device says, and 0 where none does", () => {
  const known = readdirSync("/sys/class/bdi").map(
    (name) => 1024 * Number(readFileSync(`/sys/class/bdi/${name}/read_ahead_kb`, "utf8")),
  );
  const bytesOf = (path: string) => {
    const fd = openSync(path, "r");
    const bytes = readAheadBytes(fd);
    closeSync(fd);
    return bytes;
  };
  expect(known).toContain(bytesOf(import.meta.path));
  expect(bytesOf("/proc/self/stat")).toBe(0);
});
