import { expect, test } from "bun:test";
import { hintTimeSlice, timeSliceNs } from "../../ffi/index.ts";

test("a thread's slice is what was asked for, within the kernel's bounds, and the system's own again", () => {
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
