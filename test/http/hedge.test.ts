/** Hedged requests: repeated when late, and limited by the cap. */
import { expect, test } from "bun:test";
import { Counter } from "../../src/http/counters.ts";
import { Hedging } from "../../src/http/hedge.ts";
import { plainClient } from "./support/clients.ts";

/** A request that takes `ms`, or ends with its signal. */
const taking =
  <Result>(ms: number, result: Result) =>
  (signal: AbortSignal): Promise<Result> => {
    const { promise, resolve, reject } = Promise.withResolvers<Result>();
    const timer = setTimeout(() => resolve(result), ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
    return promise;
  };

/** Hedging that has seen quick answers, for a client with this many requests. */
async function primed(requests: number) {
  const client = plainClient();
  const hedging = new Hedging(client);
  client.counters[Counter.Requests] = requests;
  for (let i = 0; i < 10; i++) await hedging.run(taking(1, i));
  return { hedging, client };
}

test("run repeats a late request and returns the first answer", async () => {
  const { hedging, client } = await primed(100);
  let calls = 0;
  let aborted = 0;
  const result = await hedging.run((signal) => {
    const number = ++calls;
    signal.addEventListener("abort", () => aborted++);
    return taking(number === 1 ? 10_000 : 1, number)(signal);
  });
  expect(result).toBe(2);
  expect(calls).toBe(2);
  expect(aborted).toBe(2);
  expect(client.counters[Counter.Hedges]).toBe(1);
});

test("run returns the first request's answer if that comes first", async () => {
  const { hedging } = await primed(100);
  let calls = 0;
  const result = await hedging.run((signal) => {
    const number = ++calls;
    return taking(number === 1 ? 60 : 10_000, number)(signal);
  });
  expect(result).toBe(1);
});

test("run repeats at most one request of twenty", async () => {
  const { hedging, client } = await primed(19);
  expect(await hedging.run(taking(60, "late"))).toBe("late");
  expect(client.counters[Counter.Hedges]).toBe(0);
  client.counters[Counter.Requests] = 39;
  for (let i = 0; i < 3; i++) await hedging.run(taking(60, "late"));
  expect(client.counters[Counter.Hedges]).toBe(1);
});

test("run rethrows an error at once, without a second request", async () => {
  const { hedging } = await primed(100);
  let calls = 0;
  const failing = hedging.run(async () => {
    calls++;
    throw new Error("refused");
  });
  await expect(failing).rejects.toThrow("refused");
  expect(calls).toBe(1);
});

test("run ends both requests when its signal aborts", async () => {
  const { hedging } = await primed(100);
  const abort = new AbortController();
  const running = hedging.run(taking(10_000, "never"), abort.signal);
  setTimeout(() => abort.abort(new Error("the program's reason")), 40);
  await expect(running).rejects.toThrow("the program's reason");
});
