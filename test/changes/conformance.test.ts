/** One suite over both trackers: the pages that a take reports, by either method. */
import { afterEach, describe, expect, test } from "bun:test";
import { openSync, readSync } from "node:fs";
import fc from "fast-check";
import { CHUNK_SIZE, FileRange, PAGE_SIZE } from "../../src/index.ts";
import { DETECTIONS, TrackedFile } from "./support/tracked-file.ts";

const rangeOf = (page: number, pages = 1) =>
  new FileRange(page * PAGE_SIZE, (page + pages) * PAGE_SIZE);

for (const detection of DETECTIONS) {
  describe(`${detection}: take`, () => {
    let tracked: TrackedFile;
    const make = (): TrackedFile => {
      tracked = new TrackedFile(detection);
      return tracked;
    };
    afterEach(() => tracked.file.destroy());

    test("reports at first every page with contents, then none", () => {
      make();
      const first = tracked.fill(100);
      expect(tracked.take()).toEqual(Array.from({ length: 100 }, (_, i) => first + i));
      expect(tracked.take()).toEqual([]);
    });

    test("reports once the pages that were written since the last take", () => {
      make();
      const first = tracked.fill(3000);
      tracked.take();
      const written = [0, 1, 17, 511, 512, 2999].map((page) => first + page);
      for (const page of written) tracked.write(page);
      expect(tracked.take()).toEqual(written);
      expect(tracked.take()).toEqual([]);
    });

    test("does not report pages that were only read", () => {
      make();
      const first = tracked.fill(500);
      tracked.take();
      let sum = 0;
      for (const byte of tracked.file.view(rangeOf(first, 500))) sum += byte;
      expect(sum).toBe(500 * PAGE_SIZE);
      expect(tracked.take()).toEqual([]);
    });

    test("reports the writes of four Workers", async () => {
      make();
      const first = tracked.fill(4000);
      tracked.take();
      const handle = tracked.file.share();
      const pages = Array.from({ length: 4 }, (_, worker) =>
        Array.from({ length: 250 }, (_, i) => first + 16 * i + 3 * worker),
      );
      await Promise.all(pages.map((own) => writeInWorker(handle, own)));
      expect(tracked.take()).toEqual(pages.flat().sort((a, b) => a - b));
    });

    test("reports a page that the kernel read a file into", () => {
      make();
      const first = tracked.fill(10);
      tracked.take();
      const fd = openSync(import.meta.path, "r");
      readSync(fd, tracked.file.view(rangeOf(first + 4)), 0, 100, 0);
      expect(tracked.take()).toEqual([first + 4]);
    });

    test("reports decommitted pages", () => {
      make();
      const first = tracked.fill(200);
      tracked.take();
      tracked.file.decommit(rangeOf(first + 10, 20));
      expect(tracked.take()).toEqual(Array.from({ length: 20 }, (_, i) => first + 10 + i));
    });

    test("reports pages that were released and allocated again", async () => {
      make();
      const first = tracked.fill(64);
      tracked.take();
      tracked.file.decRef(rangeOf(first + 8, 8));
      await tracked.file.released();
      tracked.take();
      const again = tracked.file.allocate(8 * PAGE_SIZE);
      expect(again.start).toBe((first + 8) * PAGE_SIZE);
      tracked.file.view(again).fill(1);
      expect(tracked.take()).toEqual(Array.from({ length: 8 }, (_, i) => first + 8 + i));
    });

    test("reports pages in chunks that the file grew by", () => {
      make();
      tracked.fill(1);
      tracked.take();
      const range = tracked.file.allocate(2 * CHUNK_SIZE);
      const last = range.end / PAGE_SIZE - 1;
      tracked.write(last);
      expect(tracked.take()).toContain(last);
      expect(tracked.take()).toEqual([]);
      tracked.write(last, 3);
      expect(tracked.take()).toEqual([last]);
    });

    test.skipIf(detection === "hashes")(
      "reports marked pages, and keeps marks made before the file grew",
      () => {
        make();
        const first = tracked.fill(40);
        tracked.take();
        tracked.core.changes.mark(first + 30, first + 33);
        tracked.file.allocate(CHUNK_SIZE);
        const reported = tracked.take();
        for (const page of [30, 31, 32]) expect(reported).toContain(first + page);
      },
    );
  });

  test(`${detection}: takes never miss a page whose contents differ`, () => {
    const page = fc.nat(63);
    const action = fc.oneof(
      fc.record({
        kind: fc.constant("write" as const),
        page,
        value: fc.integer({ min: 1, max: 9 }),
      }),
      fc.record({ kind: fc.constant("decommit" as const), page }),
      fc.record({ kind: fc.constant("free" as const), page }),
      fc.record({ kind: fc.constant("take" as const) }),
    );
    fc.assert(
      fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
        using tracked = new TrackedFile(detection);
        const first = tracked.fill(64);
        tracked.take();
        const model = new Model(tracked, first);
        for (const each of actions) model.run(each);
        model.run({ kind: "take" });
      }),
      { numRuns: 60 },
    );
  });
}

type Action =
  | { kind: "write"; page: number; value: number }
  | { kind: "decommit" | "free"; page: number }
  | { kind: "take" };

/** Copies all pages at each take, and compares. */
class Model {
  private readonly used = new Set<number>();
  private readonly tracked: TrackedFile;
  private readonly first: number;
  private last: Map<number, Uint8Array>;

  constructor(tracked: TrackedFile, first: number) {
    this.tracked = tracked;
    this.first = first;
    for (let page = first; page < first + 64; page++) this.used.add(page);
    this.last = this.copyAll();
  }

  run(action: Action): void {
    const { file } = this.tracked;
    if (action.kind === "take") {
      this.compare();
      return;
    }
    const page = this.first + action.page;
    if (!this.used.has(page)) {
      // Recycled or new, the pages are zero.
      const range = file.allocate(PAGE_SIZE, { mode: action.page % 2 ? "commit" : "uncommitted" });
      this.used.add(range.start / PAGE_SIZE);
    } else if (action.kind === "write") this.tracked.write(page, action.value);
    else if (action.kind === "decommit") file.decommit(rangeOf(page));
    else {
      file.decRef(rangeOf(page));
      this.used.delete(page);
    }
  }

  private compare(): void {
    const reported = new Set(this.tracked.take());
    const now = this.copyAll();
    for (const [page, bytes] of now) {
      const before = this.last.get(page);
      const differs =
        before === undefined ? bytes.some((byte) => byte !== 0) : !equal(before, bytes);
      if (differs && !reported.has(page))
        throw new Error(`Page ${page} differs and is not reported`);
    }
    this.last = now;
  }

  private copyAll(): Map<number, Uint8Array> {
    return new Map(
      [...this.used].map((page) => [page, this.tracked.file.view(rangeOf(page)).slice()]),
    );
  }
}

const equal = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

async function writeInWorker(handle: unknown, pages: number[]): Promise<void> {
  const worker = new Worker(new URL("./support/writer.ts", import.meta.url));
  const written = new Promise((resolve, reject) => {
    worker.addEventListener("message", resolve, { once: true });
    worker.addEventListener("error", reject, { once: true });
  });
  worker.postMessage({ handle, pages });
  await written;
  worker.terminate();
}
