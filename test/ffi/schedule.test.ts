import { expect, test } from "bun:test";
import { hintTimeSlice, niceOf, timeSliceNs } from "../../ffi/index.ts";

test("hintTimeSlice sets a thread's slice, and restores the system's own", () => {
  const own = timeSliceNs();
  if (!hintTimeSlice(5_000_000)) return expect(own).toBe(0);
  const wasTaken = timeSliceNs() === 5_000_000;
  // Before Linux 6.12 nothing changes, and nothing fails.
  if (wasTaken) {
    expect(hintTimeSlice(10 ** 12)).toBe(true);
    expect(timeSliceNs()).toBe(100_000_000);
  }
  expect(hintTimeSlice(0)).toBe(true);
  expect(timeSliceNs()).toBe(own);
});

test("lowerPriority makes a thread nicer, and never less nice", async () => {
  // In a process of its own, because the change lasts.
  const program = `
    import { lowerPriority, niceOf } from "${import.meta.dir}/../../ffi/index.ts";
    const seen = [niceOf(), lowerPriority(15), niceOf(), lowerPriority(12), niceOf()];
    console.log(JSON.stringify(seen));`;
  const child = Bun.spawnSync([process.execPath, "-e", program], { stderr: "inherit" });
  const own = niceOf();
  const nicer = Math.max(own, 15);
  expect(JSON.parse(child.stdout.toString())).toEqual([own, true, nicer, true, nicer]);
});
