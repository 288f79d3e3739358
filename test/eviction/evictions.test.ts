/**
 * Evictions: when users are asked, for which ranges, in which order, and what happens to their
 * errors.
 */
import { afterEach, expect, test } from "bun:test";
import fc from "fast-check";
import { setFaultHook } from "../../ffi/index.ts";
import {
  DestroyedError,
  type EvictableMemoryUser,
  type EvictableRange,
  EvictionError,
  type FileRange,
  MemoryFile,
  PAGE_SIZE,
  PressureUnavailableError,
} from "../../src/index.ts";

afterEach(() => setFaultHook(undefined));

/** On a host that does not report pressure, "enabled" evicts when idle, so nothing is delayed. */
const TELLS_OF_PRESSURE = (() => {
  using file = MemoryFile.create();
  return file.evictionTrigger.kind === "pressure";
})();

/** Pressure that does not come while a test runs. */
const UNHEARD_OF = { stallMs: 2000, windowMs: 2000 };

/** Records the ranges that it is asked to evict. */
class Recorder implements EvictableMemoryUser {
  readonly evicted: string[] = [];

  evict({ start, end }: EvictableRange): void {
    this.evicted.push(`${start}-${end}`);
  }
}

const range = (start: number, end: number): EvictableRange => ({ start, end });
const turns = async (count: number) => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
};

test("startEvictions evicts all merged ranges, the last first", async () => {
  using file = MemoryFile.create({ delayedEviction: "manual" });
  const user = new Recorder();
  for (const [start, end] of [
    [0, 10],
    [20, 30],
    [10, 20],
    [50, 60],
    [25, 35],
    [55, 58],
  ]) {
    file.markEvictable(user, range(start!, end!));
  }
  file.markUnevictable(user, range(5, 7));
  file.markUnevictable(user, range(100, 200));
  await turns(5);
  await file.waitForEvictions();
  expect(user.evicted).toEqual([]);
  expect([file.shouldCacheEvictable(), file.evictionTrigger]).toEqual([true, { kind: "manual" }]);
  file.startEvictions();
  expect(user.evicted).toEqual([]); // in a later turn, never on the caller's stack
  await file.waitForEvictions();
  expect(user.evicted).toEqual(["50-60", "7-35", "0-5"]);
  file.startEvictions();
  await file.waitForEvictions();
  expect(user.evicted.length).toBe(3);
});

test("mode disabled evicts marked ranges in a later turn of the event loop", async () => {
  using file = MemoryFile.create({ delayedEviction: "disabled" });
  const user = new Recorder();
  expect([file.shouldCacheEvictable(), file.evictionTrigger]).toEqual([
    false,
    { kind: "immediate" },
  ]);
  file.markEvictable(user, range(0, 4));
  file.markEvictable(user, range(8, 9)); // joins the eviction that has been started
  expect(user.evicted).toEqual([]);
  await file.waitForEvictions();
  expect(user.evicted).toEqual(["8-9", "0-4"]);
});

test("mode disabled spares ranges that are marked unevictable before that turn", async () => {
  using file = MemoryFile.create({ delayedEviction: "disabled" });
  const [a, b] = [new Recorder(), new Recorder()];
  file.markEvictable(a, range(0, 4));
  file.markEvictable(b, range(0, 4));
  file.markUnevictable(a, range(1, 3));
  file.markAllUnevictable(b);
  await file.waitForEvictions();
  expect([a.evicted, b.evicted]).toEqual([["3-4", "0-1"], []]);
});

test.skipIf(!TELLS_OF_PRESSURE)(
  "mode enabled delays evictions on a host that reports pressure, and startEvictions starts them",
  async () => {
    using file = MemoryFile.create({ memoryPressure: UNHEARD_OF });
    const user = new Recorder();
    expect(file.evictionTrigger.kind).toBe("pressure");
    expect(file.shouldCacheEvictable()).toBe(true);
    file.markEvictable(user, range(0, 4));
    await turns(20);
    expect(user.evicted).toEqual([]);
    file.startEvictions();
    await file.waitForEvictions();
    expect(user.evicted).toEqual(["0-4"]);
  },
);

test("evictionTrigger is idle, with a reason, on a host that reports no pressure", async () => {
  setFaultHook((syscall) => (syscall === "open" ? { errno: 13 } : undefined));
  using file = MemoryFile.create({ memoryPressure: { stallMs: 149, windowMs: 2000 } });
  const user = new Recorder();
  const trigger = file.evictionTrigger;
  setFaultHook(undefined);
  expect(trigger.kind).toBe("idle");
  const { reason } = trigger as { reason: PressureUnavailableError };
  expect(reason).toBeInstanceOf(PressureUnavailableError);
  expect(reason.code).toBe("ERR_PRESSURE_UNAVAILABLE");
  expect(reason.message).toContain("EACCES: open failed for '/proc/pressure/memory'");
  expect(file.shouldCacheEvictable()).toBe(false);
  file.decRef(file.allocate(PAGE_SIZE));
  file.markEvictable(user, range(0, 4));
  expect(user.evicted).toEqual([]);
  while (user.evicted.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  expect(user.evicted).toEqual(["0-4"]);
  await file.released();
});

test("evictionTrigger is idle if the kernel refuses a trigger, and nothing stays open", () => {
  const fds = () =>
    new Set(Array.from(new Bun.Glob("*").scanSync({ cwd: "/proc/self/fd", onlyFiles: false })))
      .size;
  const before = fds();
  setFaultHook((syscall) => (syscall === "write" ? { errno: 22 } : undefined));
  using file = MemoryFile.create({ memoryPressure: { stallMs: 148, windowMs: 2000 } });
  const { kind, reason } = file.evictionTrigger as {
    kind: string;
    reason: PressureUnavailableError;
  };
  setFaultHook(undefined);
  expect(kind).toBe("idle");
  expect(
    reason.errors.every(({ message }) =>
      /^(EINVAL: write|ENOENT: open|EACCES: open)/.test(message),
    ),
  ).toBe(true);
  expect(fds()).toBe(before + 1); // the file's own
});

test.skipIf(!TELLS_OF_PRESSURE)(
  "allocate starts evictions when it brings the file near its limit",
  async () => {
    using file = MemoryFile.create({ limitBytes: 64 * PAGE_SIZE, memoryPressure: UNHEARD_OF });
    const entries: FileRange[] = [];
    const user: EvictableMemoryUser = {
      evict({ start, end }) {
        for (let i = start; i < end; i++) file.decRef(entries[i]!);
      },
    };
    for (let i = 0; i < 13; i++) {
      entries.push(file.allocate(4 * PAGE_SIZE));
      file.markEvictable(user, range(i, i + 1));
    }
    await turns(5);
    expect(file.allocatedBytes).toBe(52 * PAGE_SIZE);
    file.allocate(8 * PAGE_SIZE); // 60 of 64
    await file.waitForEvictions();
    expect(file.allocatedBytes).toBe(8 * PAGE_SIZE);
  },
);

test("a user may mark a range again while it evicts, and is asked again", async () => {
  using file = MemoryFile.create({ delayedEviction: "manual" });
  const evicted: string[] = [];
  const user: EvictableMemoryUser = {
    evict({ start, end }) {
      evicted.push(`${start}-${end}`);
      if (evicted.length === 1) {
        file.markUnevictable(user, range(0, 1));
        file.markEvictable(user, range(70, 71));
      }
    },
  };
  file.markEvictable(user, range(0, 2));
  file.markEvictable(user, range(10, 12));
  file.startEvictions();
  await file.waitForEvictions();
  expect(evicted).toEqual(["10-12", "70-71", "1-2"]);
});

test("a user with a pending promise is asked for no more", async () => {
  using file = MemoryFile.create({ delayedEviction: "manual" });
  let open = 0;
  let most = 0;
  const user: EvictableMemoryUser = {
    async evict() {
      most = Math.max(most, ++open);
      await Bun.sleep(1);
      open--;
    },
  };
  for (let i = 0; i < 5; i++) file.markEvictable(user, range(2 * i, 2 * i + 1));
  file.startEvictions();
  file.startEvictions();
  await file.waitForEvictions();
  expect([open, most]).toEqual([0, 1]);
});

test("waitForEvictions rejects with the errors of users, after all other evictions", async () => {
  using file = MemoryFile.create({ delayedEviction: "manual" });
  const evicted: number[] = [];
  const failing: EvictableMemoryUser = {
    evict({ start }) {
      if (start === 2) throw new TypeError("busy");
      evicted.push(start);
    },
  };
  const rejecting: EvictableMemoryUser = { evict: () => Promise.reject(new Error("later")) };
  for (const start of [0, 2, 4]) file.markEvictable(failing, range(start, start + 1));
  file.markEvictable(rejecting, range(7, 9));
  file.startEvictions();
  const error = (await file.waitForEvictions().catch((thrown: unknown) => thrown)) as EvictionError;
  expect(error).toBeInstanceOf(EvictionError);
  expect([error.code, error.failureCount, evicted]).toEqual(["ERR_EVICTION", 2, [4, 0]]);
  const told = error.failures.map(({ user, range: { start }, error: cause }) => [
    user,
    start,
    (cause as Error).message,
  ]);
  expect(told).toContainEqual([failing, 2, "busy"]);
  expect(told).toContainEqual([rejecting, 7, "later"]);
  await file.waitForEvictions(); // told once
});

test("waitForEvictions rejects with errors that no wait had; a warning comes first", async () => {
  using file = MemoryFile.create({ delayedEviction: "disabled" });
  const warnings: Error[] = [];
  const onWarning = (warning: Error) => warnings.push(warning);
  process.on("warning", onWarning);
  const user: EvictableMemoryUser = {
    evict() {
      throw new Error("no wait");
    },
  };
  for (let i = 0; i < 150; i++) {
    file.markEvictable(user, range(i, i + 1));
    await turns(3);
  }
  process.off("warning", onWarning);
  expect(warnings.length).toBe(1); // until a wait was told
  expect(warnings[0]).toBeInstanceOf(EvictionError);
  const error = (await file.waitForEvictions().catch((thrown: unknown) => thrown)) as EvictionError;
  expect([error.failureCount, error.failures.length]).toEqual([150, 100]);
});

test("destroy ends evictions and their waits", async () => {
  const file = MemoryFile.create({ delayedEviction: "disabled" });
  const user = new Recorder();
  file.markEvictable(user, range(0, 4));
  const waiting = file.waitForEvictions();
  file.destroy();
  await waiting;
  expect(user.evicted).toEqual([]);
  const calls: (() => unknown)[] = [
    () => file.markEvictable(user, range(0, 1)),
    () => file.markUnevictable(user, range(0, 1)),
    () => file.markAllUnevictable(user),
    () => file.startEvictions(),
    () => file.shouldCacheEvictable(),
    () => file.evictionTrigger,
  ];
  for (const call of calls) expect(call).toThrow(DestroyedError);
  expect(file.waitForEvictions()).rejects.toThrow(DestroyedError);
});

test("markEvictable refuses bad arguments, and marks nothing then", async () => {
  using file = MemoryFile.create({ delayedEviction: "manual" });
  const user = new Recorder();
  expect(() => file.markEvictable(null as never, range(0, 1))).toThrow(TypeError);
  expect(() => file.markEvictable({} as never, range(0, 1))).toThrow(TypeError);
  expect(() => file.markEvictable(user, undefined as never)).toThrow(TypeError);
  for (const bad of [range(-1, 1), range(1, 0), range(0.5, 1), range(0, 2 ** 53)]) {
    expect(() => file.markEvictable(user, bad)).toThrow(RangeError);
    expect(() => file.markUnevictable(user, bad)).toThrow(RangeError);
  }
  file.markEvictable(user, range(3, 3)); // empty: no effect
  file.startEvictions();
  await file.waitForEvictions();
  expect(user.evicted).toEqual([]);
  expect(() => MemoryFile.create({ delayedEviction: "later" as never })).toThrow(TypeError);
  expect(() => MemoryFile.create({ memoryPressure: { stallMs: 0, windowMs: 2000 } })).toThrow(
    RangeError,
  );
  expect(() => MemoryFile.create({ memoryPressure: { stallMs: 3000, windowMs: 2000 } })).toThrow(
    RangeError,
  );
  expect(() => MemoryFile.create({ memoryPressure: { stallMs: 100, windowMs: 100 } })).toThrow(
    RangeError,
  );
});

test("startEvictions evicts random marks of several users once, in maximal ranges", async () => {
  const bound = fc.integer({ min: 0, max: 30 });
  const step = fc.record({
    op: fc.constantFrom(
      "mark" as const,
      "mark" as const,
      "unmark" as const,
      "unmarkAll" as const,
      "evict" as const,
    ),
    user: fc.integer({ min: 0, max: 2 }),
    a: bound,
    b: bound,
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      using file = MemoryFile.create({ delayedEviction: "manual" });
      const users = [new Recorder(), new Recorder(), new Recorder()];
      const model = users.map(() => new Set<number>());
      const evict = async () => {
        file.startEvictions();
        await file.waitForEvictions();
        for (const [i, user] of users.entries()) {
          const runs = maximalRuns(model[i]!).reverse();
          expect(user.evicted.splice(0)).toEqual(runs);
          model[i]!.clear();
        }
      };
      for (const { op, user, a, b } of steps) {
        const [start, end] = [Math.min(a, b), Math.max(a, b)];
        if (op === "evict") await evict();
        else if (op === "unmarkAll") {
          file.markAllUnevictable(users[user]!);
          model[user]!.clear();
        } else {
          file[op === "mark" ? "markEvictable" : "markUnevictable"](
            users[user]!,
            range(start, end),
          );
          for (let i = start; i < end; i++) model[user]![op === "mark" ? "add" : "delete"](i);
        }
      }
      await evict();
    }),
    { numRuns: 60 },
  );
});

function maximalRuns(numbers: ReadonlySet<number>): string[] {
  const runs: { start: number; end: number }[] = [];
  for (const number of [...numbers].sort((a, b) => a - b)) {
    const last = runs.at(-1);
    if (last?.end === number) last.end++;
    else runs.push({ start: number, end: number + 1 });
  }
  return runs.map(({ start, end }) => `${start}-${end}`);
}
