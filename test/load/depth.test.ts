/**
 * Depth on simulated devices: as many units as they need and no more, and at most one while a
 * thread waits.
 */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { Depth } from "../../src/load/depth.ts";

/**
 * A device that takes `latencyMs` for a unit, and moves at most `unitsPerMs`. Units in flight
 * arrive one after the other at the resulting rate. Returns the time-weighted mean of the depth in
 * the second half, and all depths.
 */
function load(
  depth: Depth,
  device: { latencyMs: number; unitsPerMs: number },
  units: number,
): { mean: number; seen: Set<number> } {
  let nowMs = 0;
  let sum = 0;
  let weight = 0;
  const seen = new Set<number>();
  for (let i = 0; i < units; i++) {
    const inFlight = depth.units(nowMs);
    seen.add(inFlight);
    const stepMs = 1 / Math.min(device.unitsPerMs, inFlight / device.latencyMs);
    nowMs += stepMs;
    if (i > units / 2) {
      sum += inFlight * stepMs;
      weight += stepMs;
    }
    depth.observe(nowMs);
  }
  return { mean: sum / weight, seen };
}

test("depth begins with two units, or one if that is the maximum", () => {
  expect(new Depth(8).units(0)).toBe(2);
  expect(new Depth(1).units(0)).toBe(1);
});

test("depth stays small on a device that two units keep busy", () => {
  expect(load(new Depth(16), { latencyMs: 2, unitsPerMs: 1 }, 4000).mean).toBeLessThan(2.5);
});

test("depth grows on a device that needs many", () => {
  expect(load(new Depth(16), { latencyMs: 32, unitsPerMs: 1 }, 4000).mean).toBeGreaterThan(8);
});

test("depth is always within its bounds", () => {
  const device = fc.record({
    latencyMs: fc.double({ min: 0.1, max: 100, noNaN: true }),
    unitsPerMs: fc.double({ min: 0.01, max: 10, noNaN: true }),
  });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 32 }), device, (most, device) => {
      for (const units of load(new Depth(most), device, 2000).seen) {
        expect(units).toBeGreaterThanOrEqual(1);
        expect(units).toBeLessThanOrEqual(most);
      }
    }),
  );
});

test("depth is one while a thread waits, and then as before", () => {
  const depth = new Depth(16);
  const device = { latencyMs: 8, unitsPerMs: 1 };
  load(depth, device, 1000);
  const before = depth.units(1e6);
  depth.giveWay(1e6);
  expect(depth.units(1e6)).toBe(1);
  for (let i = 1; i < 100; i++) depth.observe(1e6 + i / 10);
  expect(depth.units(1e6 + 19)).toBe(1);
  expect(depth.units(1e6 + 20)).toBe(before);
});
