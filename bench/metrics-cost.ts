/**
 * What metrics cost the calls that they count: the time of counting alone, and that of the shortest
 * call of its kind. `bun bench/metrics-cost.ts`
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Field } from "../src/control/control.ts";
import { coreOf } from "../src/file/memory-file.ts";
import { MemoryFile, PAGE_SIZE, prometheus } from "../src/index.ts";
import { recordAwait, recordSave } from "../src/metrics/record.ts";
import { median } from "./support/statistics.ts";

const ROUNDS = 9;

/** Nanoseconds of processor time of one run of `work`: the median of rounds of `times` runs. */
async function nsOf(times: number, work: () => unknown): Promise<number> {
  const rounds: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const cpu = process.cpuUsage();
    for (let i = 0; i < times; i++) await work();
    const { user, system } = process.cpuUsage(cpu);
    rounds.push((1000 * (user + system)) / times);
  }
  return median(rounds);
}

/** The same for work that has no promise. */
function nsOfSync(times: number, work: () => unknown): number {
  const rounds: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const beganNs = Bun.nanoseconds();
    for (let i = 0; i < times; i++) work();
    rounds.push((Bun.nanoseconds() - beganNs) / times);
  }
  return median(rounds);
}

function show(what: string, countingNs: number, callNs: number): void {
  const percent = ((100 * countingNs) / callNs).toFixed(2);
  console.log(`${what}: ${countingNs.toFixed(1)} of ${callNs.toFixed(0)} ns, ${percent} %`);
}

const directory = mkdtempSync(join(tmpdir(), "pgalloc-metrics-cost-"));
try {
  using file = MemoryFile.create({ name: "cost" });
  const core = coreOf(file);
  const { fields } = core.control;
  const count = () => {
    fields[Field.Allocations]!++;
    fields[Field.AllocatedPages]! += 1;
  };
  const pair = () => file.decRef(file.allocate(PAGE_SIZE));
  nsOfSync(100_000, pair);
  const countNs = nsOfSync(1e7, count) - nsOfSync(1e7, () => undefined);
  show("allocate and decRef", countNs, nsOfSync(100_000, pair));

  const pages = { start: 0, end: 1 };
  const nothing = Promise.resolve();
  const bare = async () => await nothing;
  const counted = () => recordAwait(core, "range", pages, bare);
  const waitNs = (await nsOf(100_000, counted)) - (await nsOf(100_000, bare));
  const contents = file.allocate(64 * 2 ** 20);
  file.view(contents).fill(1);
  const saved = join(directory, "saved");
  const report = await file.saveTo(saved);
  const shortestNs: number[] = [];
  for (let load = 0; load < ROUNDS; load++) {
    using again = await MemoryFile.loadFrom(saved, { background: true, workingSet: false });
    // The background pass begins at the other end. Loaded pages are not waits, and not counted.
    for (let i = 1; i <= 16 && again.isLoading; i++) {
      const start = contents.end - i * 2 ** 21;
      const range = { start, end: start + PAGE_SIZE };
      if (again.isLoaded(range)) continue;
      const beganNs = Bun.nanoseconds();
      await again.awaitLoad(range);
      shortestNs.push(Bun.nanoseconds() - beganNs);
    }
  }
  show("awaitLoad of one page, page cache hot", waitNs, median(shortestNs));

  using small = MemoryFile.create({ name: "small" });
  small.view(small.allocate(PAGE_SIZE)).fill(1);
  const saveNs = await nsOf(50, () =>
    small.saveTo(join(directory, "small"), { incremental: false }),
  );
  const save = () => recordSave([core], directory, Promise.resolve(report));
  show("saveTo of one page", (await nsOf(20_000, save)) - (await nsOf(20_000, bare)), saveNs);
  console.log(
    `a scrape: metrics() ${nsOfSync(1000, () => file.metrics()).toFixed(0)} ns, ` +
      `prometheus() ${nsOfSync(1000, () => prometheus(file)).toFixed(0)} ns`,
  );
} finally {
  rmSync(directory, { recursive: true });
}
process.exit(0);
