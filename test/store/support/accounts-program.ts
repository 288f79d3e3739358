/** Transfers, and checkpoints all the time, until it is killed. */
import { Store } from "../../../src/data/index.ts";
import { openAccounts, transfer } from "./accounts.ts";
import { randomOf } from "./stamps.ts";

const [where, seed] = process.argv.slice(2) as [string, string];
const store = await Store.open(where, { create: true });
await store.memory.awaitLoad();
const accounts = openAccounts(store);
const random = randomOf(Number(seed));
for (let round = 0; ; round++) {
  const saved = store.checkpoint();
  for (let i = 0; i < 200; i++) transfer(store, accounts, random);
  await saved;
  if (round === 1) console.log("saved");
}
