/** createQueue: the queue that it makes, and the reasons why it refuses one. */
import { describe, expect, test } from "bun:test";
import { createQueue } from "../../src/aio/index.ts";

describe("createQueue", () => {
  test("refuses other kinds and thread counts", () => {
    expect(() => createQueue("threads" as never)).toThrow(TypeError);
    for (const threads of [0, 49, 1.5])
      expect(() => createQueue("workers", { threads })).toThrow(RangeError);
  });

  test("auto works everywhere", async () => {
    await using queue = createQueue();
    expect(queue.capacity).toBe(32);
    expect(queue.wait(0).count).toBe(0);
  });

  test("uses Workers for auto without io_uring, and throws the reason for uring", () => {
    const program = `
      import { errnoNumber, setFaultHook } from "${import.meta.dir}/../../ffi/index.ts";
      import { createQueue, uringUnavailableReason }
        from "${import.meta.dir}/../../src/aio/index.ts";
      setFaultHook((name) =>
        name === "io_uring_setup" ? { errno: errnoNumber("EPERM") } : undefined);
      const queue = createQueue("auto");
      console.log(queue.constructor.name);
      console.log(uringUnavailableReason());
      try { createQueue("uring"); } catch (error) {
        console.log(error.code, error.message.includes(uringUnavailableReason()));
      }`;
    const { stdout, exitCode } = Bun.spawnSync([process.execPath, "-e", program], {
      stderr: "inherit",
      timeout: 20_000,
    });
    expect(stdout.toString().split("\n")).toEqual([
      "WorkerQueue",
      "io_uring is forbidden: by a container's seccomp filter or kernel.io_uring_disabled (EPERM)",
      "ERR_URING_UNAVAILABLE true",
      "",
    ]);
    expect(exitCode).toBe(0);
  });
});
