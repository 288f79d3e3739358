/**
 * Where things are in a store's memory. All numbers here are part of the stored format.
 *
 * A store owns ranges of its MemoryFile and numbers them: they are its windows. Window 0 is the
 * root, which holds the table of all windows. An address is (window, word). A window has at most
 * 2^25 words of 32 bits, so both are small integers to the engine, and a typed array's bounds keep
 * each access inside the store's own pages. A stored address of a block is 39 bits, in units of 16
 * bytes: `window * 2^23 + word / 4`. A stored address of a page is 31 bits: `window * 2^15 + page`.
 * (A page here is 4 KiB on every machine.)
 *
 *   root     header · heads of the size classes · names · journal · table of windows
 *   segment  bitmap of free pages · a record for each page · pages
 *   large    one run of pages and nothing else
 *
 * A run is some pages in a row, a span is a run that is cut into blocks of one size class.
 */

export const STORE_PAGE = 4096;
export const WORDS_PER_PAGE = STORE_PAGE / 4;
export const WINDOW_PAGE_BITS = 15;
export const PAGES_PER_WINDOW = 1 << WINDOW_PAGE_BITS;
export const WINDOW_PAGE_MASK = PAGES_PER_WINDOW - 1;
/** Bits of a block's place in its window, in units of 16 bytes. */
export const WINDOW_UNIT_BITS = 23;
export const WINDOW_UNIT_MASK = (1 << WINDOW_UNIT_BITS) - 1;
export const MAX_WINDOWS = 1 << 16;

export const FORMAT_VERSION = 1;
/** "pgStore\0" in two words. */
export const MAGIC_LOW = 0x7453_6770;
export const MAGIC_HIGH = 0x0065_726f;

/** Words of the root. */
export const Root = {
  MagicLow: 0,
  MagicHigh: 1,
  Version: 2,
  /** One more than the highest window in use. */
  WindowCount: 3,
  /** Changes with every window that comes or goes: threads then read the table again. */
  WindowsVersion: 4,
  /** Changes with every name that comes or goes. */
  NamesVersion: 5,
  /** Entries of the journal that the operation under way has made; 0 between operations. */
  JournalCount: 6,
  /** The random key of the hash function. */
  SeedLow: 7,
  SeedHigh: 8,
  /** Counts blocks that the heap made, modulo 2^29. */
  Generation: 9,
  /** The window in which pages were found last. */
  CurrentWindow: 10,
  /** The first free window, or 0; each names the next one. */
  FreeWindow: 11,
  /** Pages of all segments, without their own records. */
  SegmentPages: 12,
  /** Pages in use. */
  UsedPages: 13,
  /** Free pages that were not given back to the kernel. */
  DirtyPages: 14,
  /** Blocks of the heap, and their bytes (two words). */
  HeapBlocks: 16,
  HeapBytes: 18,
  /** For each size class the first span with a free block, as a page's address. */
  ClassHeads: 64,
  /** Page addresses of the structures' headers. */
  Names: 1024,
} as const;

export const MAX_NAMES = 16_384;
/** Entries of three words: window, word, what it held. */
export const JOURNAL_AT = Root.Names + MAX_NAMES;
export const JOURNAL_WORDS = 3;
export const JOURNAL_MAX = 8192;
export const WINDOWS_AT = JOURNAL_AT + JOURNAL_WORDS * JOURNAL_MAX;
export const WINDOW_WORDS = 8;
export const ROOT_WORDS = WINDOWS_AT + WINDOW_WORDS * MAX_WINDOWS;
export const ROOT_BYTES = 4 * ROOT_WORDS;
/** What a store reads when it opens: all of the root except the table of windows. */
export const ROOT_FIXED_BYTES = 4 * WINDOWS_AT;

/** Words of a window's record. */
export const WindowWord = {
  /** Page of the MemoryFile (PAGE_SIZE) at which it begins. */
  Start: 0,
  /** Its length in pages of 4 KiB; 0 for a window that is not in use. */
  Pages: 1,
  Kind: 2,
  FreePages: 3,
  /** No free run is longer. */
  LongestRun: 4,
  DirtyPages: 5,
  /** No page is free below this word of the bitmap; of a free window: the next free window. */
  Hint: 6,
} as const;

export const WindowKind = { Segment: 1, Large: 2 } as const;

/**
 * Words of a page's record. The first page of a run or span has it; the others of a span name the
 * first.
 */
export const PageWord = {
  /** Kind, size class << 4, blocks that were cut so far << 12. */
  State: 0,
  /** Run: pages. Span: first free block + 1, blocks in use << 16. Inside a span: its first page. */
  Use: 1,
  /** Spans of a class with free blocks are a doubly linked list. */
  Next: 2,
  Previous: 3,
} as const;
export const PAGE_RECORD_WORDS = 4;

export const PageKind = { Free: 0, Run: 1, Span: 2, Inside: 3 } as const;

/** The low bits of a block's first word. */
export const BlockKind = { Free: 0, Heap: 1, Entry: 2, Cell: 3 } as const;
export const BLOCK_KIND_MASK = 7;

/** Words of a segment's bitmap: one bit a page, set if it is free. */
export const bitmapWords = (pages: number): number => ((pages + 127) >>> 7) << 2;

/** Pages that a segment's own bitmap and records take. */
export const recordPages = (pages: number): number =>
  Math.ceil((bitmapWords(pages) + PAGE_RECORD_WORDS * pages) / WORDS_PER_PAGE);

/** The word of a window's record in the root. */
export const windowAt = (window: number): number => WINDOWS_AT + WINDOW_WORDS * window;

export const pageAddress = (window: number, page: number): number =>
  (window << WINDOW_PAGE_BITS) | page;
