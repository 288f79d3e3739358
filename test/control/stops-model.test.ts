/**
 * The protocol of control/stops.ts as small steps, each one access of shared memory, run in every
 * order that fast-check draws. No thread writes to a file while a stop of it runs its work, and
 * under any fair order every stop ends. The steps follow the code line by line. Real threads run
 * the code itself in stops.test.ts and stops-stress.test.ts.
 */
import { expect, test } from "bun:test";
import fc from "fast-check";

const RUNNING = 1;
const STILL = 2;

class Machine {
  /** Word.Stop of each file: 0, or the stopping thread. */
  readonly stop: number[];
  /** State of each thread in each file. */
  readonly state: number[][];
  /** Files that a thread is writing to, and files whose stop runs its work. */
  readonly writing: Set<number>[];
  readonly working = new Set<number>();
  stops = 0;

  constructor(threads: number, files: number) {
    this.stop = Array.from({ length: files }, () => 0);
    this.state = Array.from({ length: threads + 1 }, () => this.stop.map(() => RUNNING));
    this.writing = Array.from({ length: threads + 1 }, () => new Set<number>());
  }

  /**
   * True if a file's stop is running its work while a thread other than the stopping one writes to
   * it.
   */
  assertStill(): void {
    for (const file of this.working)
      for (const [thread, files] of this.writing.entries())
        if (files.has(file) && this.stop[file] !== thread)
          throw new Error(`Thread ${thread} writes to file ${file} during its stop`);
  }
}

/** One step. False if the thread would sleep. */
type Step = Generator<boolean, void>;
type Plan = readonly { readonly kind: "write" | "stop"; readonly files: readonly number[] }[];

function* runAgain(machine: Machine, me: number): Step {
  const files = machine.stop.keys().toArray();
  for (;;) {
    for (const file of files) {
      machine.state[me]![file] = RUNNING;
      yield true;
    }
    let stopped: number | undefined;
    for (const file of files) {
      const stopper = machine.stop[file]!;
      if (stopped === undefined && stopper !== 0 && stopper !== me) stopped = file;
      yield true;
    }
    if (stopped === undefined) return;
    yield* beStill(machine, me);
    while (machine.stop[stopped] !== 0 && machine.stop[stopped] !== me) yield false;
  }
}

function* beStill(machine: Machine, me: number): Step {
  for (const file of machine.stop.keys()) {
    machine.state[me]![file] = STILL;
    yield true;
  }
}

function* write(machine: Machine, me: number, files: readonly number[]): Step {
  for (const file of files) {
    machine.writing[me]!.add(file);
    yield true;
  }
  yield true;
  machine.writing[me]!.clear();
}

function* stop(machine: Machine, me: number, files: readonly number[]): Step {
  yield* beStill(machine, me);
  const ordered = [...files].sort();
  for (const file of ordered) {
    while (machine.stop[file] !== 0) yield false;
    machine.stop[file] = me;
    yield true;
  }
  for (const file of ordered)
    for (const [thread, states] of machine.state.entries()) {
      if (thread === 0 || thread === me) continue;
      while (states[file] === RUNNING) yield false;
      yield true;
    }
  for (const file of ordered) machine.working.add(file);
  for (let step = 0; step < 3; step++) yield true;
  machine.stops++;
  for (const file of ordered) machine.working.delete(file);
  for (const file of ordered) {
    machine.stop[file] = 0;
    yield true;
  }
  yield* runAgain(machine, me);
}

function* thread(machine: Machine, me: number, plan: Plan): Step {
  for (const { kind, files } of plan) {
    if (kind === "stop") yield* stop(machine, me, files);
    else yield* write(machine, me, files);
    // Between two turns of the event loop.
    const isAsked = machine.stop.some((stopper) => stopper !== 0 && stopper !== me);
    yield true;
    if (!isAsked) continue;
    yield* beStill(machine, me);
    yield* runAgain(machine, me);
  }
  // Its event loop continues, so it stops whenever it is asked.
  machine.state[me]!.fill(STILL);
  for (;;) yield false;
}

const FILES = 3;
const files = fc.uniqueArray(fc.nat(FILES - 1), { minLength: 1 });
const plan = fc.array(fc.record({ kind: fc.constantFrom("write" as const, "stop"), files }), {
  maxLength: 5,
});

test("no thread writes during a stop, and no two stops wait for each other, in any order", () => {
  fc.assert(
    fc.property(
      fc.array(plan, { minLength: 2, maxLength: 4 }),
      fc.array(fc.nat(3), { maxLength: 400 }),
      (plans, order) => {
        const machine = new Machine(plans.length, FILES);
        const threads = plans.map((own, i) => thread(machine, i + 1, own));
        const advance = (index: number) => {
          const { value } = threads[index % threads.length]!.next();
          machine.assertStill();
          return value !== false;
        };
        for (const index of order) advance(index);
        // Now in turns, which is fair: until all wait, and then until all plans are done.
        for (let idle = 0, steps = 0; idle < 2 * threads.length; steps++) {
          idle = advance(steps) ? 0 : idle + 1;
          if (steps > 20_000) throw new Error("The threads do not come to an end");
        }
        const wanted = plans.flat().filter(({ kind }) => kind === "stop").length;
        expect(machine.stops).toBe(wanted);
      },
    ),
    { numRuns: 3000 },
  );
});
