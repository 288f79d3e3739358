/** The image that tests of mapped files restore: each page is filled with a stamp of its own. */
import { HUGE_PAGE_SIZE, MemoryFile, PAGE_SIZE } from "../../../src/index.ts";

export const PAGES = 6 * (HUGE_PAGE_SIZE / PAGE_SIZE) + 37;
export const all = { start: 0, end: PAGES * PAGE_SIZE };
export const pages = (first: number, count = 1) => ({
  start: first * PAGE_SIZE,
  end: (first + count) * PAGE_SIZE,
});

export const stamp = (page: number) => (Math.imul(page + 1, 0x9e3779b1) | 1) >>> 0;

/** The pages whose words are not all as expected. */
export function wrongPages(file: MemoryFile, expected: (page: number) => number = stamp): number[] {
  const words = file.view(all, Uint32Array);
  const wrong: number[] = [];
  for (let page = 0; page < PAGES; page++) {
    const want = expected(page);
    if (!words.subarray(page * 1024, (page + 1) * 1024).every((word) => word === want))
      wrong.push(page);
  }
  return wrong;
}

/** Saves the image to `place`. */
export async function saveDense(place: string): Promise<void> {
  using file = MemoryFile.create();
  file.allocate(all.end);
  for (let page = 0; page < PAGES; page++) file.view(pages(page), Uint32Array).fill(stamp(page));
  await file.saveTo(place);
}
