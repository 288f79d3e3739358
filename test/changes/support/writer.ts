/** A Worker that writes one byte to each page it is told. */
import { MemoryFile, type MemoryFileHandle, PAGE_SIZE } from "../../../src/index.ts";

declare const self: {
  onmessage: (event: { data: { handle: MemoryFileHandle; pages: number[] } }) => void;
};

self.onmessage = ({ data: { handle, pages } }) => {
  const file = MemoryFile.attach(handle);
  for (const page of pages) {
    const start = page * PAGE_SIZE;
    file.view({ start, end: start + PAGE_SIZE })[9] = 77;
  }
  postMessage("written");
};
