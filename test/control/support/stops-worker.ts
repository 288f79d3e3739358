/**
 * A Worker that keeps an invariant: within a turn of its event loop it writes the same number to
 * several pages, one after the other. Words of its own show its state; see StopsWord.
 */
import { MemoryFile, type MemoryFileHandle, type RangeLike } from "../../../src/index.ts";
import { stopsProgress, StopsWord, type WorkerMode, type WorkerTask } from "./stops-words.ts";

declare const self: { onmessage: (event: { data: WorkerTask }) => void };

const nap = new Int32Array(new SharedArrayBuffer(4));

self.onmessage = ({ data }) => {
  const file = MemoryFile.attach(data.handle as MemoryFileHandle, {
    readOnly: data.mode === "readOnly",
  });
  const words = data.words;
  const pages = data.pages.map((range: RangeLike) => file.view(range, Int32Array));
  const write = () => {
    const value = Atomics.add(words, StopsWord.Writes, 1) + 1;
    for (const page of pages) {
      page[data.index] = value;
      for (let spin = 0; spin < 200; spin++) Atomics.pause();
    }
  };
  Atomics.store(words, StopsWord.Up, 1);
  Atomics.notify(words, StopsWord.Up);
  modes[data.mode](file, words, write);
};

const isOver = (words: Int32Array): boolean => Atomics.load(words, StopsWord.Over) !== 0;

const modes: Record<WorkerMode, (file: MemoryFile, words: Int32Array, write: () => void) => void> =
  {
    turns: (file, words, write) => {
      for (let i = 0; i < 20; i++) write();
      if (!isOver(words)) setImmediate(() => modes.turns(file, words, write));
    },
    safepoints: (file, words, write) => {
      while (!isOver(words)) {
        write();
        file.safepoint();
        stopsProgress(words);
      }
    },
    stuck: (_, words) => {
      while (!isOver(words)) stopsProgress(words);
    },
    readOnly: (_, words) => {
      while (!isOver(words)) stopsProgress(words);
    },
    parked: (file, words) => {
      file.parked(() => Atomics.wait(words, StopsWord.Over, 0));
      stopsProgress(words);
      Atomics.store(words, StopsWord.Left, 1);
    },
    idle: (_, words) => {
      const look = () => {
        if (!isOver(words)) setTimeout(look, 5);
      };
      look();
      Atomics.wait(nap, 0, 0, 0);
    },
  };
