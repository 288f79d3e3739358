/**
 * One very large allocation and its release; nothing is committed. The cost must not depend on the
 * length. The first pair of a file extends and maps the file, so it is a figure of its own, as in
 * the peer.
 */
import { measure } from "mitata";
import { MemoryFile } from "../src/index.ts";
import {
  type Bench,
  budget,
  main,
  number,
  type Params,
  type Run,
  type Sample,
} from "./support/bench.ts";

const GIB = 2 ** 30;

export const bench: Bench = {
  subject: "big",
  title: "allocate + decRef of one range",
  cases: ({ isSmoke }) => (isSmoke ? [1] : [1, 64]).map((gib) => ({ bytes: gib * GIB })),
  measure: sample,
  gvisor: { arguments: ({ bytes }) => ["big", "-bytes", `${bytes}`, "-ops", "11"] },
};

async function sample(params: Params, run: Run): Promise<Sample> {
  const bytes = number(params, "bytes");
  using file = MemoryFile.create({ name: "bench" });
  const firstAt = Bun.nanoseconds();
  file.decRef(file.allocate(bytes));
  const firstNs = Bun.nanoseconds() - firstAt;
  await file.released();
  let pairNs = 0;
  let pairs = 0;
  const settled = await measure(async () => {
    const at = Bun.nanoseconds();
    const range = file.allocate(bytes);
    file.decRef(range);
    pairNs += Bun.nanoseconds() - at;
    pairs++;
    if (range.start !== 0) throw new Error(`The only range is at ${range.start}, not at 0`);
    await file.released();
  }, budget(run));
  return {
    figures: { nsPerPair: pairNs / pairs, nsPerPairSettled: settled.avg, firstNsPerPair: firstNs },
    hash: `${file.totalSizeBytes}-${file.allocatedBytes}`,
  };
}

if (import.meta.main) await main(bench);
