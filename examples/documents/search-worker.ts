/** A Worker that looks for the rows nearest to a vector in its share of the table's chunks. */
import { parentPort, workerData } from "node:worker_threads";
import { Store } from "pgalloc/data";
import { DIMENSIONS, tableOf } from "./documents.ts";

const { handle, part, parts } = workerData;
const store = Store.attach(handle, { readOnly: true });

/** The `count` rows with the largest dot product, as [score, row]. */
function search(query: readonly number[], count: number): [number, number][] {
  const best: [number, number][] = [];
  let first = 0;
  for (const [index, chunk] of tableOf(store).column("vector").entries()) {
    const rows = chunk.length / DIMENSIONS;
    for (let row = 0; index % parts === part && row < rows; row++) {
      let score = 0;
      for (let i = 0; i < DIMENSIONS; i++) score += query[i]! * chunk[row * DIMENSIONS + i]!;
      if (best.length === count && score <= best[count - 1]![0]) continue;
      best.push([score, first + row]);
      best.sort((a, b) => b[0] - a[0]);
      best.length = Math.min(best.length, count);
    }
    first += rows;
  }
  return best;
}

parentPort!.on("message", async ({ id, query, count }) => {
  const rows = await store.whenLoaded(() => search(query, count));
  parentPort!.postMessage({ id, rows });
});
