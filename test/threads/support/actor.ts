/**
 * A Worker that carries out a test's actions on a MemoryFile. It can be stopped between two steps
 * of a protocol, or ended there, while the test continues: a forced interleaving.
 */
import type { Point } from "../../../src/control/interleave.ts";
import { isThreadAlive } from "../../../src/threads/thread.ts";
import type { actions } from "./actor-worker.ts";

type Actions = typeof actions;

export interface StopRequest {
  readonly point: Point;
  readonly gate: Int32Array;
  /** Block there in a native call, on opening this FIFO, instead of in Atomics.wait. */
  readonly openFifo?: string | undefined;
}

export type ToActor = {
  readonly id: number;
  readonly action: keyof Actions;
  readonly args: readonly unknown[];
};
export type FromActor =
  | { readonly thread: number }
  | { readonly id: number; readonly value: unknown }
  | {
      readonly id: number;
      readonly failed: {
        readonly name: string;
        readonly code: string | null;
        readonly message: string;
      };
    };

export const GateWord = { Reached: 0, Open: 1 } as const;

/** The error that an action threw in the Worker. */
export class ActorError extends Error {
  readonly code: string | null;

  constructor(name: string, code: string | null, message: string) {
    super(message);
    this.name = name;
    this.code = code;
  }
}

/** A point at which an actor stops. */
export class Gate {
  readonly words = new Int32Array(new SharedArrayBuffer(8));

  /** How often the actor has reached the point. It stops the first time only. */
  get count(): number {
    return Atomics.load(this.words, GateWord.Reached);
  }

  /** Resolves when the actor has reached the point. */
  async reached(): Promise<void> {
    while (this.count === 0) await Bun.sleep(1);
  }

  /** Makes it continue. */
  open(): void {
    Atomics.store(this.words, GateWord.Open, 1);
    Atomics.notify(this.words, GateWord.Open);
  }
}

export class Actor {
  readonly worker = new Worker(new URL("./actor-worker.ts", import.meta.url));
  readonly closed: Promise<void>;
  readonly #calls = new Map<number, PromiseWithResolvers<unknown>>();
  #nextId = 1;
  /** Its word, once it has started. */
  #thread = 0;

  constructor() {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.worker.addEventListener("close", () => resolve());
    this.worker.addEventListener("message", ({ data }: MessageEvent<FromActor>) => {
      if ("thread" in data) {
        this.#thread = data.thread;
        return;
      }
      const call = this.#calls.get(data.id)!;
      this.#calls.delete(data.id);
      if ("failed" in data)
        call.reject(new ActorError(data.failed.name, data.failed.code, data.failed.message));
      else call.resolve(data.value);
    });
  }

  /** Resolves or rejects with the action's result. */
  call<Name extends keyof Actions>(
    action: Name,
    ...args: Parameters<Actions[Name]>
  ): Promise<Awaited<ReturnType<Actions[Name]>>> {
    const call = Promise.withResolvers<unknown>();
    const id = this.#nextId++;
    this.#calls.set(id, call);
    this.worker.postMessage({ id, action, args } satisfies ToActor);
    return call.promise as never;
  }

  /** Makes it stop at `point`, once. */
  async stopAt(point: Point, openFifo?: string): Promise<Gate> {
    const gate = new Gate();
    await this.call("stopAt", { point, gate: gate.words, openFifo });
    return gate;
  }

  /**
   * Ends the thread at any point. Resolves when it is gone, for the kernel too, which may be a
   * moment after `close`.
   */
  async terminate(): Promise<void> {
    this.worker.terminate();
    await this.closed;
    while (this.#thread !== 0 && isThreadAlive(this.#thread)) await Bun.sleep(1);
  }
}

/** The error of a call. (Bun's `rejects` starves the Workers' messages while it waits.) */
export async function failureOf(call: Promise<unknown>): Promise<ActorError> {
  const outcome = await call.then(
    (value) => ({ value }),
    (error: ActorError) => error,
  );
  if (outcome instanceof Error) return outcome;
  throw new Error(`Expected the call to fail, it gave ${JSON.stringify(outcome.value)}`);
}
