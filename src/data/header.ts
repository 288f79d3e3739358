/**
 * Headers of named structures: a page each, found through the names in the root. All structures
 * have the same first words; `Structure` is what maps and tables share.
 */
import { showValue } from "../../ffi/index.ts";
import { CorruptStoreError, DroppedError, WrongTypeError } from "../errors/store.ts";
import type { Arena } from "./arena.ts";
import type { Pages } from "./pages.ts";
import {
  MAX_NAMES,
  pageAddress,
  Root,
  WINDOW_PAGE_BITS,
  WINDOW_PAGE_MASK,
  WORDS_PER_PAGE,
} from "./layout.ts";

/** Stored. */
export const StructureKind = { Map: 0x70616d, Table: 0x626174 } as const;
export const KIND_NAMES: Readonly<Record<number, string>> = {
  [StructureKind.Map]: "map",
  [StructureKind.Table]: "table",
};
const KIND_VERSION = 1;
export const MAX_NAME_BYTES = 255;

/** Words that all headers have. */
export const HeaderWord = { Kind: 0, Version: 1, NameBytes: 2, Created: 32 } as const;
const NAME_AT = WORDS_PER_PAGE - 64;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** Where a header is, and its number among all names. */
export interface HeaderPlace {
  readonly name: string;
  readonly kind: number;
  readonly structure: number;
  readonly window: number;
  readonly word: number;
  /** Distinguishes it from earlier structures with the same name or page. */
  readonly created: number;
  /** Root.NamesVersion when it was last known to exist. */
  seenVersion: number;
  /** Arena.adoptions then. */
  seenAdoption: number;
}

/** @throws {TypeError} {RangeError} */
export function checkName(name: unknown): Uint8Array {
  if (typeof name !== "string")
    throw new TypeError(`Expected name to be a string, got ${showValue(name)}`);
  const bytes = encoder.encode(name);
  if (!name.isWellFormed() || bytes.length < 1 || bytes.length > MAX_NAME_BYTES)
    throw new RangeError(
      `Expected a well-formed name of 1 to ${MAX_NAME_BYTES} bytes, got ${JSON.stringify(name)}`,
    );
  return bytes;
}

/** The names of a store. */
export class Names {
  private readonly arena: Arena;
  private readonly pages: Pages;
  private places = new Map<string, HeaderPlace>();
  private version = -1;
  private adoption = 0;

  constructor(arena: Arena, pages: Pages) {
    this.arena = arena;
    this.pages = pages;
  }

  /** All structures, by name. Within `beginRead`. @throws {CorruptStoreError} {NotLoadedError} */
  all(): ReadonlyMap<string, HeaderPlace> {
    const { arena } = this;
    const { root } = arena;
    const version = root[Root.NamesVersion]!;
    if (version === this.version && arena.adoptions === this.adoption) return this.places;
    const places = new Map<string, HeaderPlace>();
    for (let structure = 0; structure < MAX_NAMES; structure++) {
      const address = root[Root.Names + structure]!;
      if (address === 0) continue;
      const place = this.read(structure, address);
      if (places.has(place.name))
        throw new CorruptStoreError(`Two structures have the name ${JSON.stringify(place.name)}`);
      places.set(place.name, place);
    }
    this.places = places;
    this.version = version;
    this.adoption = arena.adoptions;
    return places;
  }

  private read(structure: number, address: number): HeaderPlace {
    const { arena } = this;
    const window = address >>> WINDOW_PAGE_BITS;
    const word = (address & WINDOW_PAGE_MASK) * WORDS_PER_PAGE;
    const words = arena.words[window];
    if (window === 0 || words === undefined || word + WORDS_PER_PAGE > words.length)
      throw arena.outside(window, word);
    if (arena.isMissing) arena.requireLoaded(window, word, WORDS_PER_PAGE);
    const kind = words[word + HeaderWord.Kind]!;
    const length = words[word + HeaderWord.NameBytes]!;
    if (KIND_NAMES[kind] === undefined || words[word + HeaderWord.Version] !== KIND_VERSION)
      throw new CorruptStoreError(`Structure ${structure} is of no known kind and version`);
    if (length < 1 || length > MAX_NAME_BYTES)
      throw new CorruptStoreError(`Structure ${structure} has a name of ${length} bytes`);
    const start = 4 * (word + NAME_AT);
    const name = decoder.decode(arena.bytes[window]!.subarray(start, start + length));
    const created = words[word + HeaderWord.Created]!;
    const seenVersion = arena.root[Root.NamesVersion]!;
    return {
      name,
      kind,
      structure,
      window,
      word,
      created,
      seenVersion,
      seenAdoption: arena.adoptions,
    };
  }

  /** True if the structure may have been dropped since the last call. */
  isStale(place: HeaderPlace): boolean {
    const { arena } = this;
    return (
      place.seenVersion !== arena.root[Root.NamesVersion] || place.seenAdoption !== arena.adoptions
    );
  }

  /** @throws {DroppedError} if the structure was dropped */
  requireLive(place: HeaderPlace, method: string): void {
    const { root } = this.arena;
    const version = root[Root.NamesVersion]!;
    const address = pageAddress(place.window, place.word / WORDS_PER_PAGE);
    if (
      root[Root.Names + place.structure] !== address ||
      this.arena.get(place.window, place.word + HeaderWord.Created) !== place.created
    )
      throw new DroppedError(place.name, method);
    place.seenVersion = version;
    place.seenAdoption = this.arena.adoptions;
  }

  /** The structure of that name and kind, or undefined. @throws {WrongTypeError} */
  find(name: string, kind: number): HeaderPlace | undefined {
    const place = this.all().get(name);
    if (place !== undefined && place.kind !== kind)
      throw new WrongTypeError(name, `a ${KIND_NAMES[kind]}`, `a ${KIND_NAMES[place.kind]}`);
    return place;
  }

  /**
   * Makes a header whose other words are 0. Within an operation. @throws {RangeError} if the store
   * has the most names that it can
   */
  create(name: string, kind: number): HeaderPlace {
    const bytes = checkName(name);
    const { arena } = this;
    const { root } = arena;
    let structure = 0;
    while (structure < MAX_NAMES && root[Root.Names + structure] !== 0) structure++;
    if (structure === MAX_NAMES)
      throw new RangeError(`A store has at most ${MAX_NAMES} named structures`);
    const address = this.pages.allocate(1);
    const window = address >>> WINDOW_PAGE_BITS;
    const word = (address & WINDOW_PAGE_MASK) * WORDS_PER_PAGE;
    const words = arena.words[window]!;
    words.fill(0, word, word + WORDS_PER_PAGE);
    arena.bytes[window]!.set(bytes, 4 * (word + NAME_AT));
    words[word + HeaderWord.Kind] = kind;
    words[word + HeaderWord.Version] = KIND_VERSION;
    words[word + HeaderWord.NameBytes] = bytes.length;
    arena.setRoot(Root.Names + structure, address);
    const seenVersion = (root[Root.NamesVersion]! + 1) | 0;
    arena.setRoot(Root.NamesVersion, seenVersion);
    words[word + HeaderWord.Created] = seenVersion;
    return {
      name,
      kind,
      structure,
      window,
      word,
      created: seenVersion,
      seenVersion,
      seenAdoption: arena.adoptions,
    };
  }

  /**
   * Removes a structure's name. Within an operation; the caller marks the readers' stripes first.
   */
  remove({ structure }: HeaderPlace): void {
    const { arena } = this;
    arena.setRoot(Root.Names + structure, 0);
    arena.setRoot(Root.NamesVersion, (arena.root[Root.NamesVersion]! + 1) | 0);
  }

  /** Frees the header of a structure without a name. Within an operation. */
  free({ window, word }: HeaderPlace): void {
    this.pages.free(pageAddress(window, word / WORDS_PER_PAGE), 1);
  }
}
