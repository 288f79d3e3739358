import { expect, test } from "bun:test";

/** The module under test, for programs of their own. */
const THREAD_MODULE = JSON.stringify(new URL("../../src/threads/thread.ts", import.meta.url).href);

test("isThreadAlive leaves no descriptor open in a terminated thread", async () => {
  // In a process of its own, in which no other test opens and closes descriptors.
  const program = `
    import { readdirSync } from "node:fs";
    // Asks for the id of this thread with another start time.
    const url = URL.createObjectURL(new Blob([\`
      import { isThreadAlive, THREAD_ID } from ${THREAD_MODULE};
      postMessage(isThreadAlive(THREAD_ID));
      while (!isThreadAlive(THREAD_ID ^ (1 << 22)));
      postMessage("taken for another thread");\`], { type: "text/javascript" }));
    const descriptors = () => readdirSync("/proc/self/fd").length;
    const before = descriptors();
    const messages = [];
    for (let i = 0; i < 30; i++) {
      const worker = new Worker(url);
      const closed = new Promise((resolve) => worker.addEventListener("close", resolve));
      await new Promise((resolve) => {
        worker.onmessage = ({ data }) => resolve(messages.push(data));
      });
      await Bun.sleep(i % 4);
      worker.terminate();
      await closed;
    }
    const areTrue = messages.every((message) => message === true);
    console.log(descriptors() - before, messages.length, areTrue);`;
  const child = Bun.spawn([process.execPath, "-e", program], { stdout: "pipe", stderr: "inherit" });
  expect(await new Response(child.stdout).text()).toBe("0 30 true\n");
});
