/** Tasks for the pool's tests: each ends in one way. */
import { SyscallError } from "../../../ffi/index.ts";
import { ThreadPool } from "../../../src/threads/pool.ts";
import type { TaskTable } from "../../../src/threads/serve.ts";

class CodedError extends Error {
  override readonly name = "CodedError";
  readonly code = "ERR_CODED";
  readonly range = { start: 4096, end: 8192 };
  readonly helper = (): number => 1;
}

const module = (run: (payload: never) => unknown) => () => Promise.resolve({ run });

export const testTasks = {
  echo: module((value) => value),
  threadId: module(async () => (await import("node:worker_threads")).threadId),
  sleep: module(async (waitMs: number) => Bun.sleep(waitMs)),
  block: module((words: Int32Array) => Atomics.wait(words, 0, 0)),
  throwSyscall: module(() => {
    throw new SyscallError("pread", 5, "/some/file", "why");
  }),
  throwRange: module(() => {
    throw new RangeError("Expected less, got 7", { cause: new CodedError("inner") });
  }),
  throwCoded: module(async () => {
    throw new CodedError("coded");
  }),
  throwMany: module(() => {
    throw new AggregateError([new TypeError("a"), new SyscallError("open", 2)], "many");
  }),
  throwValue: module(() => {
    throw { plain: 1 };
  }),
  returnFunction: module(() => () => 1),
  exit: module((code: number) => process.exit(code)),
  uncaught: module(() => {
    setTimeout(() => {
      throw new Error("not caught");
    }, 1);
    return new Promise(() => {});
  }),
  importMissing: () => import(`./missing-${Date.now()}.ts`),
  nested: module(async (): Promise<unknown[]> => {
    const pool: ThreadPool<string> = testPool();
    const values: unknown[] = await Promise.all([
      pool.run("echo", 1).done,
      pool.run("echo", 2).done,
    ]);
    await pool.run("exit", 3).done.catch((error: { code: string }) => values.push(error.code));
    await pool.terminateIdle();
    return values;
  }),
} satisfies TaskTable;

export function testPool(): ThreadPool<string> {
  return new ThreadPool(new URL("./worker.ts", import.meta.url));
}
