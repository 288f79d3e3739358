/** A table of public calls: each leaves nothing behind, whether it succeeds or fails. */
import { join } from "node:path";
import { Store } from "../../../src/data/index.ts";
import { exportTo, importFrom } from "../../../src/gvisor/index.ts";
import {
  CHUNK_SIZE,
  type LoadQueue,
  loadAll,
  MemoryFile,
  PAGE_SIZE,
  type RangeLike,
  saveAll,
} from "../../../src/index.ts";

export const CONTENT_BYTES = 64 * PAGE_SIZE;
export const STAMP = 5;

export interface Place {
  /** It has the checkpoint "base" of CONTENT_BYTES with STAMP in each byte; else for the call. */
  readonly directory: string;
  /** A file that other threads may share. */
  readonly file: MemoryFile;
}

/** Makes a small checkpoint at `directory`/base. */
export async function prepareBase(directory: string): Promise<void> {
  using file = MemoryFile.create();
  file.view(file.allocate(CONTENT_BYTES)).fill(STAMP);
  await file.saveTo(join(directory, "base"));
}

function own<T>({ file }: Place, use: (range: RangeLike) => T): T {
  const range = file.allocate(4 * PAGE_SIZE);
  try {
    return use(range);
  } finally {
    file.decRef(range);
  }
}

async function load({ directory }: Place, queue: LoadQueue, background: boolean): Promise<void> {
  using file = await MemoryFile.loadFrom(join(directory, "base"), { queue, background });
  await file.awaitLoad();
  const bytes = file.view({ start: 0, end: CONTENT_BYTES });
  if (!bytes.every((byte) => byte === STAMP)) throw new Error("Expected the saved bytes");
}

type Call = (place: Place) => unknown;

export const publicCalls: Readonly<Record<string, Call>> = {
  create: () => MemoryFile.create().destroy(),
  "create with a path": ({ directory }) => {
    using file = MemoryFile.create({ path: join(directory, `file-${crypto.randomUUID()}`) });
    file.view(file.allocate(PAGE_SIZE)).fill(1);
  },
  allocate: (place) => own(place, () => {}),
  "allocate in a new chunk": ({ file }) => file.decRef(file.allocate(CHUNK_SIZE)),
  incRef: (place) =>
    own(place, (range) => {
      place.file.incRef(range);
      place.file.decRef(range);
    }),
  view: (place) => own(place, (range) => place.file.view(range).fill(1)),
  decommit: (place) =>
    own(place, (range) => {
      place.file.view(range).fill(1);
      place.file.decommit(range);
    }),
  released: async (place) => {
    own(place, (range) => place.file.view(range).fill(1));
    await place.file.released();
  },
  updateUsage: ({ file }) => file.updateUsage(),
  "share and attach": () => {
    using file = MemoryFile.create();
    MemoryFile.attach(file.share()).allocate(PAGE_SIZE);
  },
  saveTo: async ({ file, directory }) => await file.saveTo(join(directory, "saved")),
  compact: async ({ file, directory }) => await file.compact(join(directory, "saved")),
  saveAll: async ({ file, directory }) => await saveAll(join(directory, "all"), { only: file }),
  checkpointEvery: async ({ file, directory }) => {
    const { promise, resolve, reject } = Promise.withResolvers();
    const saves = file.checkpointEvery(join(directory, "every"), 1, {
      onSave: resolve,
      onError: reject,
    });
    try {
      await promise;
    } finally {
      await saves.stop();
    }
  },
  "loadFrom in the foreground": (place) => load(place, "auto", false),
  "loadFrom with threads": (place) => load(place, "workers", true),
  "loadFrom inline": (place) => load(place, "inline", true),
  loadAll: async ({ directory }) => {
    using files = await loadAll(join(directory, "base"));
    await files.get("main")!.awaitLoad();
  },
  retryLoad: async ({ directory }) => {
    const abort = new AbortController();
    using file = await MemoryFile.loadFrom(join(directory, "base"), {
      background: true,
      signal: abort.signal,
    });
    abort.abort();
    await file.retryLoad();
  },
  "exportTo and importFrom": async ({ file, directory }) => {
    await exportTo(file, join(directory, "gvisor"));
    using back = await importFrom(join(directory, "gvisor"));
    await back.awaitLoad();
  },
  Store: async ({ directory }) => {
    // Disposed after a failure: `close` leaves open a store that it cannot save.
    using store = await Store.open(join(directory, "store"), { create: true });
    await store.whenLoaded(() => store.map("names").set("a", new Uint8Array(100)));
    await store.close();
  },
};
