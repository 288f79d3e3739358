/**
 * Measures how much the hot calls of a MemoryFile allocate on the JavaScript heap. garbage.test.ts
 * runs it with JSC's log of collections: each loop is between two full collections, whose sizes are
 * in the log.
 */
import { FileRange, MemoryFile, PAGE_SIZE } from "../../../src/index.ts";

const ROUNDS = 8;
const count = Number(process.argv[2]);
const file = MemoryFile.create();
const ranges = Array.from({ length: 100 }, (_, i) => file.allocate((1 + (i % 64)) * PAGE_SIZE));
const kept: FileRange[] = [new FileRange(0, 0)];

const work: Readonly<Record<string, (index: number) => void>> = {
  nothing: () => {},
  // The size of one range for each operation, for comparison.
  range: (index) => {
    kept[0] = new FileRange(index, index + 1);
  },
  references: (index) => {
    file.incRef(ranges[index]!);
    file.decRef(ranges[index]!);
  },
  unique: (index) => {
    file.hasUniqueRef(ranges[index]!);
  },
  view: (index) => {
    file.view(ranges[index]!);
  },
  allocate: (index) => {
    const range = ranges[index]!;
    file.decRef(range);
    ranges[index] = file.allocate(range.length);
  },
};

for (const [name, operation] of Object.entries(work)) {
  for (let i = 0; i < count; i++) operation(i % ranges.length);
  for (let round = 0; round < ROUNDS; round++) {
    Bun.gc(true);
    process.stderr.write(`BEGIN ${name}\n`);
    for (let i = 0; i < count; i++) operation(i % ranges.length);
    Bun.gc(true);
  }
}
file.destroy();
