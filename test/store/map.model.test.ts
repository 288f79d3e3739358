/**
 * StoreMap against a Map: the same commands, and after each the same answers. Restarts go through a
 * checkpoint, with its pages loaded in the background; memory runs out at any allocation; the clock
 * moves.
 */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { OutOfMemoryError } from "../../src/index.ts";
import { Store, type StoreMap } from "../../src/data/index.ts";

const root = mkdtempSync(join(tmpdir(), "pgalloc-map-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let directories = 0;

interface Real {
  store: Store;
  map: StoreMap;
  where: string;
}

interface Entry {
  readonly value: Uint8Array;
  readonly expiry: number;
}

/** The model also has the clock, and whether memory may run out. */
class Model {
  readonly entries = new Map<string, Entry>();
  now = 1_000_000_000_000;

  get(key: string): Uint8Array | undefined {
    const entry = this.entries.get(key);
    return entry === undefined || entry.expiry <= this.now ? undefined : entry.value;
  }

  live(): Map<string, Uint8Array> {
    const live = new Map<string, Uint8Array>();
    for (const [key, { value, expiry }] of this.entries)
      if (expiry > this.now) live.set(key, value);
    return live;
  }
}

let clock = new Model();
const now = () => clock.now;
const limitBytes = 24 * 1024 * 1024;

const sorted = (entries: Iterable<[string, Uint8Array]>) =>
  [...entries]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => [key, Buffer.from(value).toString("hex")]);

function compare(model: Model, { map }: Real): void {
  expect(sorted(map)).toEqual(sorted(model.live()));
}

type Command = fc.AsyncCommand<Model, Real>;

const key = fc.oneof(
  fc.integer({ min: 0, max: 40 }).map((i) => `key-${i}`),
  fc.string({ unit: "grapheme", maxLength: 12 }).filter((text) => text.isWellFormed()),
);
const value = fc.oneof(
  fc.uint8Array({ maxLength: 200 }),
  fc.integer({ min: 0, max: 70_000 }).map((length) => new Uint8Array(length).fill(length)),
);

class SetCommand implements Command {
  constructor(
    readonly key: string,
    readonly value: Uint8Array,
    readonly ttlMs: number | undefined,
  ) {}
  check = () => true;
  async run(model: Model, real: Real): Promise<void> {
    await real.store.whenLoaded(() =>
      real.map.set(this.key, this.value, this.ttlMs === undefined ? {} : { ttlMs: this.ttlMs }),
    );
    const expiry = this.ttlMs === undefined ? Number.POSITIVE_INFINITY : model.now + this.ttlMs;
    model.entries.set(this.key, { value: this.value, expiry });
    expect(real.map.has(this.key)).toBe(true);
  }
  toString = () => `set(${JSON.stringify(this.key)}, ${this.value.length} bytes, ${this.ttlMs})`;
}

class DeleteCommand implements Command {
  constructor(readonly key: string) {}
  check = () => true;
  async run(model: Model, real: Real): Promise<void> {
    const was = model.get(this.key) !== undefined;
    model.entries.delete(this.key);
    expect(await real.store.whenLoaded(() => real.map.delete(this.key))).toBe(was);
  }
  toString = () => `delete(${JSON.stringify(this.key)})`;
}

class GetCommand implements Command {
  constructor(readonly key: string) {}
  check = () => true;
  async run(model: Model, real: Real): Promise<void> {
    const wanted = model.get(this.key);
    const got = await real.store.whenLoaded(() => real.map.get(this.key));
    expect(got === undefined ? undefined : Buffer.from(got).toString("hex")).toEqual(
      wanted === undefined ? undefined : Buffer.from(wanted).toString("hex"),
    );
  }
  toString = () => `get(${JSON.stringify(this.key)})`;
}

/** Many keys at once, so that buckets are split and segments added. */
class FillCommand implements Command {
  constructor(
    readonly first: number,
    readonly count: number,
  ) {}
  check = () => true;
  async run(model: Model, real: Real): Promise<void> {
    const bytes = new Uint8Array(20).fill(this.first);
    for (let i = this.first; i < this.first + this.count; i++) {
      await real.store.whenLoaded(() => real.map.set(`fill-${i}`, bytes));
      model.entries.set(`fill-${i}`, { value: bytes, expiry: Number.POSITIVE_INFINITY });
    }
  }
  toString = () => `fill(${this.first}, ${this.count})`;
}

class ClearCommand implements Command {
  check = () => true;
  async run(model: Model, real: Real): Promise<void> {
    await real.store.whenLoaded(() => real.map.clear());
    model.entries.clear();
    expect(real.map.size).toBe(0);
  }
  toString = () => "clear()";
}

class WaitCommand implements Command {
  constructor(readonly ms: number) {}
  check = () => true;
  async run(model: Model, real: Real): Promise<void> {
    model.now += this.ms;
    await real.store.whenLoaded(() => real.map.removeExpired());
    for (const [key, { expiry }] of model.entries)
      if (expiry <= model.now) model.entries.delete(key);
    expect(real.map.size).toBe(model.entries.size);
  }
  toString = () => `wait(${this.ms})`;
}

class RestartCommand implements Command {
  check = () => true;
  async run(model: Model, real: Real): Promise<void> {
    await real.store.close();
    real.store = await Store.open(real.where, { now, limitBytes });
    real.map = real.store.map("m");
    void model;
  }
  toString = () => "restart()";
}

/**
 * Values until memory runs out, by the file's limit: the one that failed is not there, all else is.
 */
class ExhaustCommand implements Command {
  check = () => true;
  async run(model: Model, real: Real): Promise<void> {
    await real.store.memory.awaitLoad();
    const big = new Uint8Array(1_000_000).fill(9);
    const set: string[] = [];
    try {
      for (let i = 0; i < 100; i++) {
        real.map.set(`big-${i}`, big);
        set.push(`big-${i}`);
      }
      throw new Error("memory did not run out");
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
    }
    expect(real.map.get(`big-${set.length}`)).toBeUndefined();
    for (const name of set) {
      expect(real.map.get(name)!.length).toBe(big.length);
      real.map.delete(name);
    }
    for (const key of [...model.entries.keys()].filter((k) => k.startsWith("big-")))
      model.entries.delete(key);
  }
  toString = () => "exhaust()";
}

test("StoreMap answers as a Map does, over restarts and out of memory", async () => {
  const commands = [
    fc
      .tuple(key, value, fc.option(fc.integer({ min: 1, max: 1000 }), { nil: undefined }))
      .map(([k, v, ttl]) => new SetCommand(k, v, ttl)),
    key.map((k) => new DeleteCommand(k)),
    key.map((k) => new GetCommand(k)),
    fc
      .tuple(fc.integer({ min: 0, max: 2000 }), fc.integer({ min: 1, max: 900 }))
      .map(([first, count]) => new FillCommand(first, count)),
    fc.constant(new ClearCommand()),
    fc.integer({ min: 1, max: 800 }).map((ms) => new WaitCommand(ms)),
    fc.constant(new RestartCommand()),
    fc.constant(new ExhaustCommand()),
  ];
  await fc.assert(
    fc.asyncProperty(fc.commands(commands, { maxCommands: 25 }), async (run) => {
      const where = join(root, `${directories++}`);
      clock = new Model();
      const store = await Store.open(where, { create: true, now, limitBytes });
      const real: Real = { store, map: store.map("m"), where };
      try {
        const checked = [...run].map((command) => ({
          check: () => true,
          async run(model: Model, r: Real) {
            await command.run(model, r);
            await r.store.memory.awaitLoad();
            compare(model, r);
          },
          toString: () => command.toString(),
        }));
        await fc.asyncModelRun(() => ({ model: clock, real }), checked as never);
      } finally {
        real.store[Symbol.dispose]();
        rmSync(where, { recursive: true, force: true });
      }
    }),
    { numRuns: 40 },
  );
}, 120_000);
