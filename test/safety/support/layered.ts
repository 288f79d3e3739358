/**
 * Checkpoints in layers: version v changes each page p with p % 7 === v % 7. So a save on top of
 * another writes a part, and each page has an expected version.
 */
import { FileRange, MemoryFile, PAGE_SIZE, type SaveOptions } from "../../../src/index.ts";
import { pageWords, stampedFile, stampOf, stampPage } from "./stamped.ts";

export const LAYERED_PAGES = 140;
const STRIDE = 7;
/** From this version on, a save starts with more page files than it leaves, so it moves pages. */
export const COMPACTING_VERSION = 8;

/** The expected version of page `page` in a checkpoint of version `version`. */
function expectedVersion(page: number, version: number): number {
  for (let v = version; v > 1; v--) if (page % STRIDE === v % STRIDE) return v;
  return 1;
}

/** Changes the pages of `version` in a file of the version before, and saves it. */
export async function saveLayer(
  file: MemoryFile,
  directory: string,
  version: number,
  options: SaveOptions = {},
): Promise<void> {
  for (let page = version % STRIDE; page < LAYERED_PAGES; page += STRIDE)
    stampPage(pageWords(file, page), page, version);
  await file.saveTo(directory, { ...options, userData: new Uint8Array([version]) });
}

/** Writes the checkpoints of versions 1 to `version`, each on top of the one before. */
export async function saveLayers(
  directory: string,
  version: number,
  options: SaveOptions = {},
): Promise<void> {
  using file = stampedFile(LAYERED_PAGES, 1);
  await file.saveTo(directory, { ...options, userData: new Uint8Array([1]) });
  for (let v = 2; v <= version; v++) await saveLayer(file, directory, v, options);
}

/** The version of a checkpoint whose every page is as expected. @throws {Error} */
export async function checkLayers(directory: string): Promise<number> {
  using file = await MemoryFile.loadFrom(directory);
  const version = file.userData?.[0] ?? -1;
  const words = file.view(new FileRange(0, LAYERED_PAGES * PAGE_SIZE), Uint32Array);
  const perPage = PAGE_SIZE / 4;
  for (let page = 0; page < LAYERED_PAGES; page++) {
    const found = stampOf(words.subarray(page * perPage, (page + 1) * perPage), page);
    const expected = expectedVersion(page, version);
    if (found !== expected)
      throw new Error(`Page ${page} is of version ${found}, not ${expected} (${version})`);
  }
  return version;
}
