/** Pages whose contents have their page number and version, so any mix-up shows. */
import { FileRange, MemoryFile, PAGE_SIZE } from "../../../src/index.ts";

const WORDS = PAGE_SIZE / 4;

/** Writes page `page`'s stamp of `version` over the whole page. */
export function stampPage(words: Uint32Array, page: number, version: number): void {
  let value = (page * 0x9e3779b1 + version * 0x85ebca6b + 1) >>> 0;
  for (let i = 2; i < WORDS; i++) {
    value = (Math.imul(value, 1664525) + 1013904223) >>> 0;
    words[i] = value;
  }
  words[0] = page;
  words[1] = version;
}

const expected = new Uint32Array(WORDS);

/** The version in the page's stamp, or -1 if its bytes are not a stamp of this page. */
export function stampOf(words: Uint32Array, page: number): number {
  const version = words[1]!;
  stampPage(expected, page, version);
  return Buffer.from(expected.buffer).equals(bytesOf(words)) ? version : -1;
}

function bytesOf(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}

export function pageWords(file: MemoryFile, page: number): Uint32Array {
  return file.view(new FileRange(page * PAGE_SIZE, (page + 1) * PAGE_SIZE), Uint32Array);
}

/** A file of `pages` pages, all stamped. */
export function stampedFile(pages: number, version: number): MemoryFile {
  const file = MemoryFile.create({ name: "stamped" });
  const range = file.allocate(pages * PAGE_SIZE);
  const words = file.view(range, Uint32Array);
  for (let page = 0; page < pages; page++)
    stampPage(words.subarray(page * WORDS, (page + 1) * WORDS), page, version);
  return file;
}

/** Writes a checkpoint of such a file. */
export async function saveStamped(
  directory: string,
  pages: number,
  version: number,
): Promise<void> {
  using file = stampedFile(pages, version);
  await file.saveTo(directory, { userData: new Uint8Array([version]) });
}

/** The version of all pages and the user data of a checkpoint. Throws if it is damaged or mixed. */
export async function checkStamped(directory: string, pages: number): Promise<number> {
  using file = await MemoryFile.loadFrom(directory);
  const version = file.userData?.[0] ?? -1;
  const words = file.view(new FileRange(0, pages * PAGE_SIZE), Uint32Array);
  for (let page = 0; page < pages; page++) {
    const found = stampOf(words.subarray(page * WORDS, (page + 1) * WORDS), page);
    if (found !== version)
      throw new Error(`Page ${page} has version ${found}, the checkpoint is version ${version}`);
  }
  return version;
}
