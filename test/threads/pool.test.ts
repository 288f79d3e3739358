import { afterEach, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { SyscallError } from "../../ffi/index.ts";
import { registerErrorClass, ThreadDiedError } from "../../src/threads/errors.ts";
import { testPool } from "./support/tasks.ts";

const pool = testPool();
afterEach(() => pool.terminateIdle());

async function failure(done: Promise<unknown>): Promise<never> {
  try {
    await done;
  } catch (error) {
    return error as never;
  }
  throw new Error("Expected the task to fail");
}

/** Runs a program on the test pool. Returns its exit and its output. */
async function program(body: string): Promise<{ exitCode: number | null; output: string }> {
  const child = Bun.spawn(
    [
      process.execPath,
      "-e",
      `import { testPool } from "${import.meta.dir}/support/tasks.ts"; const pool = testPool(); ` +
        `${body}`,
    ],
    {
      stdout: "pipe",
      stderr: "inherit",
      timeout: 20_000,
      killSignal: "SIGKILL",
    },
  );
  const output = await new Response(child.stdout).text();
  await child.exited;
  return { exitCode: child.exitCode, output: output.trim() };
}

describe("a task", () => {
  test("returns its value", async () => {
    expect(await pool.run("echo", { a: [1, 2n, new Uint8Array([3])] }).done).toEqual({
      a: [1, 2n, new Uint8Array([3])],
    });
  });

  test("shares SharedArrayBuffers and can block its thread", async () => {
    const words = new Int32Array(new SharedArrayBuffer(4));
    const { done } = pool.run("block", words);
    expect(pool.count()).toEqual({ idle: 0, busy: 1 });
    Atomics.store(words, 0, 1);
    Atomics.notify(words, 0);
    expect(["ok", "not-equal"]).toContain((await done) as string);
  });

  test("reuses one thread for one after the other", async () => {
    const threads = new Set<unknown>();
    for (let i = 0; i < 1000; i++) threads.add(await pool.run("threadId", null).done);
    expect(threads.size).toBe(1);
    expect(pool.count()).toEqual({ idle: 1, busy: 0 });
  });

  test("has a thread of its own beside others; only six threads stay", async () => {
    const running = Array.from({ length: 9 }, () => pool.run("threadId", null));
    expect(pool.count().busy).toBe(9);
    expect(new Set(await Promise.all(running.map((task) => task.done))).size).toBe(9);
    expect(pool.count().busy).toBe(0);
    expect(pool.count().idle).toBeLessThanOrEqual(6);
  });

  test("runs in a pool inside a thread", async () => {
    expect(await pool.run("nested", null).done).toEqual([1, 2, "ERR_THREAD_DIED"]);
  });

  test("with a payload that cannot be copied throws and loses no thread", async () => {
    expect(() => pool.run("echo", () => 1)).toThrow();
    expect(pool.count()).toEqual({ idle: 1, busy: 0 });
    expect(await pool.run("echo", 1).done).toBe(1);
  });
});

describe("an error", () => {
  test("of a system call keeps all fields", async () => {
    const error = await failure(pool.run("throwSyscall", null).done);
    expect(error).toBeInstanceOf(SyscallError);
    const wanted = new SyscallError("pread", 5, "/some/file", "why");
    expect({ ...(error as object) }).toEqual({ ...wanted });
    expect((error as Error).message).toBe(wanted.message);
    expect((error as Error).stack).toContain("tasks.ts");
  });

  test("keeps its built-in class and its cause", async () => {
    const error: Error = await failure(pool.run("throwRange", null).done);
    expect(error).toBeInstanceOf(RangeError);
    expect(error.message).toBe("Expected less, got 7");
    expect(error.cause).toMatchObject({ name: "CodedError", code: "ERR_CODED", message: "inner" });
  });

  test("of an unknown class keeps name, code and fields", async () => {
    const error: Error = await failure(pool.run("throwCoded", null).done);
    expect(error).toBeInstanceOf(Error);
    expect(error).toMatchObject({
      name: "CodedError",
      code: "ERR_CODED",
      range: { start: 4096, end: 8192 },
    });
  });

  test("of a registered class is rebuilt by it", async () => {
    class Rebuilt extends Error {}
    registerErrorClass("CodedError", ({ message }) => new Rebuilt(message));
    const error: Error = await failure(pool.run("throwCoded", null).done);
    expect(error).toBeInstanceOf(Rebuilt);
    expect(error).toMatchObject({ name: "CodedError", message: "coded", code: "ERR_CODED" });
  });

  test("of many errors keeps each", async () => {
    const error: AggregateError = await failure(pool.run("throwMany", null).done);
    expect(error).toBeInstanceOf(AggregateError);
    expect(error.errors[0]).toBeInstanceOf(TypeError);
    expect(error.errors[1]).toBeInstanceOf(SyscallError);
  });

  test("that is not an Error arrives unchanged", async () => {
    expect((await failure(pool.run("throwValue", null).done)) as unknown).toEqual({ plain: 1 });
  });

  test("in the task's import ends the thread, which cannot import it again", async () => {
    const error = await failure(pool.run("importMissing", null).done);
    expect(error).toMatchObject({
      code: "ERR_THREAD_DIED",
      cause: { message: expect.stringContaining("missing-") },
    });
    expect(pool.count()).toEqual({ idle: 0, busy: 0 });
  });

  test("in the task's name or in its return value is the task's", async () => {
    expect((await failure(pool.run("unknown", null).done)) as unknown).toBeInstanceOf(TypeError);
    expect(await failure(pool.run("returnFunction", null).done)).toHaveProperty(
      "name",
      "DataCloneError",
    );
    expect(pool.count()).toEqual({ idle: 1, busy: 0 });
  });
});

describe("a thread that dies", () => {
  test("by process.exit rejects its task and is replaced", async () => {
    const error = await failure(pool.run("exit", 3).done);
    expect(error).toBeInstanceOf(ThreadDiedError);
    expect(error).toMatchObject({ code: "ERR_THREAD_DIED", exitCode: 3 });
    expect(pool.count()).toEqual({ idle: 0, busy: 0 });
    expect(await pool.run("echo", 5).done).toBe(5);
  });

  test("by an uncaught error names it", async () => {
    const error: Error = await failure(pool.run("uncaught", null).done);
    expect(error).toBeInstanceOf(ThreadDiedError);
    expect(String((error.cause as Error).message)).toContain("not caught");
    expect(await pool.run("echo", 6).done).toBe(6);
  });

  test("leaves no thread of the system behind", async () => {
    await pool.run("echo", 1).done;
    await pool.terminateIdle();
    const before = readdirSync("/proc/self/task").length;
    for (let round = 0; round < 5; round++) {
      await Promise.allSettled([
        pool.run("exit", 1).done,
        pool.run("echo", 1).done,
        pool.run("throwValue", 1).done,
      ]);
      await pool.terminateIdle();
    }
    // The runtime's own helper threads come and go. A thread takes a while to end if others want
    // the processor. A thread that stays fails the test by its time limit.
    while (readdirSync("/proc/self/task").length > before + 3) await Bun.sleep(5);
  });
});

describe("the process", () => {
  test("exits by itself while threads are idle", async () => {
    const { exitCode, output } = await program(`console.log(await pool.run("echo", 1).done);`);
    expect({ exitCode, output }).toEqual({ exitCode: 0, output: "1" });
  });

  test("stays alive while a task runs, on a new thread and on a used one", async () => {
    const { output } = await program(`
      void pool.run("sleep", 50).done.then(() => {
        console.log("a");
        void pool.run("sleep", 50).done.then(() => console.log("b"));
      });`);
    expect(output).toBe("a\nb");
  });

  test("does not stay alive for a task with ref: false", async () => {
    const { exitCode, output } = await program(`
      await pool.run("echo", 1).done;
      void pool.run("sleep", 600000, { ref: false });
      const word = new Int32Array(new SharedArrayBuffer(4));
      void pool.run("block", word, { ref: false });`);
    expect({ exitCode, output }).toEqual({ exitCode: 0, output: "" });
  });
});
