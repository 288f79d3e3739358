/**
 * A Worker that in each turn writes a new number to its own word of every page, one page after the
 * other. It ends when it is terminated.
 */
import { MemoryFile, type MemoryFileHandle, PAGE_SIZE } from "../../../src/index.ts";

declare const self: {
  onmessage: (event: { data: { handle: MemoryFileHandle; pages: number; word: number } }) => void;
};

self.onmessage = ({ data: { handle, pages, word } }) => {
  const file = MemoryFile.attach(handle);
  const words = file.view({ start: 0, end: pages * PAGE_SIZE }, Int32Array);
  let number = 0;
  const turn = () => {
    number++;
    for (let page = 0; page < pages; page++) words[page * (PAGE_SIZE / 4) + word] = number;
    setTimeout(turn, 1);
  };
  turn();
  postMessage("up");
};
