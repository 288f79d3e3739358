/**
 * A Worker that, in each turn of its event loop, writes a number to all pages of a file, or stops
 * files and checks that all pages have equal numbers. It runs until the test ends or terminates it.
 */
import { MemoryFile, type MemoryFileHandle, StopTimeoutError } from "../../../src/index.ts";
import { StressWord } from "./stress-words.ts";
import { stopAll } from "./stops-words.ts";

declare const self: {
  onmessage: (event: {
    data: { handles: MemoryFileHandle[]; words: Int32Array; seed: number; pages: number };
  }) => void;
};

self.onmessage = ({ data: { handles, words, seed, pages } }) => {
  const files = handles.map((handle) => MemoryFile.attach(handle));
  const views = files.map((file) => file.view({ start: 0, end: pages * 4096 }, Int32Array));
  let state = seed;
  const draw = (below: number) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % below;
  };
  const isWhole = (view: Int32Array) => {
    for (let page = 1; page < pages; page++)
      if (view[page * 1024 + seed] !== view[seed]) return false;
    return true;
  };
  const turn = () => {
    const file = draw(files.length);
    if (draw(4) !== 0) {
      const value = draw(2 ** 20);
      for (let page = 0; page < pages; page++) views[file]![page * 1024 + seed] = value;
      Atomics.add(words, StressWord.Writes, 1);
    } else {
      const chosen = files.filter((_, i) => i === file || draw(2) === 0);
      try {
        stopAll(chosen, () => {
          for (const one of chosen) {
            const view = views[files.indexOf(one)]!;
            const before = view.slice();
            if (!isWhole(view) || Buffer.compare(bytes(before), bytes(view)) !== 0)
              Atomics.add(words, StressWord.Broken, 1);
          }
        });
        Atomics.add(words, StressWord.Stops, 1);
      } catch (error) {
        if (!(error instanceof StopTimeoutError)) throw error;
        Atomics.add(words, StressWord.Timeouts, 1);
      }
    }
    if (Atomics.load(words, StressWord.Over) === 0) setImmediate(turn);
    else postMessage("left");
  };
  postMessage("up");
  turn();
};

const bytes = (view: Int32Array) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
