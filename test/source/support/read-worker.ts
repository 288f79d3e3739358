/** A Worker that reads content 0 of a source into memory, and then wakes its waiter. */
import { openReader, type PageSource } from "../../../src/source/index.ts";

interface Task {
  readonly source: PageSource;
  readonly memory: number;
  readonly lengthBytes: number;
  readonly done: Int32Array;
}

(globalThis as unknown as { onmessage: unknown }).onmessage = async ({
  data,
}: MessageEvent<Task>) => {
  const { source, memory, lengthBytes, done } = data;
  const reader = await openReader(source, "background");
  const { readBytesMax } = reader.capabilities;
  for (let at = 0; at < lengthBytes; at += readBytesMax)
    reader.read(at, 0, at, Float64Array.of(memory + at, readBytesMax), 1);
  while (reader.inFlight > 0) await reader.waitAsync(1);
  await reader.close();
  Atomics.store(done, 0, 1);
  Atomics.notify(done, 0);
};
