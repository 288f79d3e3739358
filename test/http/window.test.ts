/** The window of background requests: grows with throughput, halves on overload. */
import { expect, test } from "bun:test";
import { RequestWindow } from "../../src/http/window.ts";

/** Sends `count` requests to a server that serves `width` at once, each in 5 ms. */
async function send(window: RequestWindow, count: number, width: number): Promise<number> {
  let most = 0;
  let active = 0;
  const queue: (() => void)[] = [];
  const request = async () => {
    most = Math.max(most, ++active);
    if (active > width) await new Promise<void>((resolve) => queue.push(resolve));
    await Bun.sleep(5);
    active--;
    queue.shift()?.();
    return 1000;
  };
  await Promise.all(Array.from({ length: count }, () => window.run(request)));
  return most;
}

test("RequestWindow grows to its limit while that increases the throughput", async () => {
  const window = new RequestWindow(48);
  expect(window.limit).toBe(8);
  await send(window, 900, 1000);
  expect(window.limit).toBeGreaterThan(8);
});

test("RequestWindow never has more requests under way than its limit", async () => {
  const window = new RequestWindow(3);
  expect(await send(window, 50, 1000)).toBe(3);
});

/** A window of at most 32, and a way to end a round of large requests that take `ms` each. */
function atOneClock() {
  let nowMs = 0;
  const window = new RequestWindow(32, () => nowMs);
  const round = async (ms: number): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<number>();
    const requests = Array.from({ length: window.limit }, () => window.run(() => promise));
    nowMs += ms;
    resolve(2 ** 21);
    await Promise.all(requests);
  };
  return { window, round };
}

test("RequestWindow shrinks to a few while large requests queue, and grows again", async () => {
  const { window, round } = atOneClock();
  await round(40);
  await round(40);
  const wide = window.limit;
  expect(wide).toBe(32);
  await round(100);
  expect(window.limit).toBeLessThan(wide);
  for (let i = 0; i < 20; i++) await round(200);
  expect(window.limit).toBe(3);
  for (let i = 0; i < 10; i++) await round(40 / (i + 1));
  expect(window.limit).toBeGreaterThan(3);
});

test("RequestWindow does not shrink for requests that take twice as long", async () => {
  const { window, round } = atOneClock();
  await round(40);
  const wide = window.limit;
  for (let i = 0; i < 5; i++) await round(80);
  expect(window.limit).toBe(wide);
});

test("throttle halves the window, once for one overload", () => {
  const window = new RequestWindow(16);
  window.throttle();
  window.throttle();
  expect(window.limit).toBe(4);
});

test("run rethrows an error and frees its place for the next", async () => {
  const window = new RequestWindow(1);
  const failing = window.run(() => Promise.reject(new Error("refused")));
  const next = window.run(async () => 1);
  await expect(failing).rejects.toThrow("refused");
  expect(await next).toBe(1);
});

test("release ends a waiting request with its signal", async () => {
  const window = new RequestWindow(1);
  const abort = new AbortController();
  const { promise, resolve } = Promise.withResolvers<number>();
  const first = window.run(() => promise);
  const second = window.run(async () => 1, abort.signal);
  abort.abort(new Error("closed"));
  window.release();
  resolve(1);
  await expect(second).rejects.toThrow("closed");
  await first;
});
