/** Bitmaps over 32-bit words, a bit a page: page p is bit p % 32 of word p / 32. */

/**
 * Calls `visit` with each bitmap word that [start, end) touches, and with the mask of its bits in
 * [start, end).
 */
export function forEachWord(
  start: number,
  end: number,
  visit: (word: number, mask: number) => void,
): void {
  for (let page = start; page < end; ) {
    const word = page >>> 5;
    const next = Math.min(end, (word + 1) << 5);
    const count = next - page;
    visit(word, count === 32 ? -1 : ((1 << count) - 1) << (page & 31));
    page = next;
  }
}

export function bitCount(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** Sets the bits of [start, end). Not atomic: for memory that is not shared yet. */
export function setBits(bits: Int32Array, start: number, end: number): void {
  const firstWhole = Math.ceil(start / 32);
  const lastWhole = end >>> 5;
  if (firstWhole < lastWhole) bits.fill(-1, firstWhole, lastWhole);
  const set = (word: number, mask: number): void => {
    bits[word]! |= mask;
  };
  forEachWord(start, Math.min(end, 32 * firstWhole), set);
  forEachWord(Math.max(start, 32 * Math.max(firstWhole, lastWhole)), end, set);
}
