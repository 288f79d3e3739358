/** Accounts in a map and in a table, whose sum a transfer does not change. */
import type { Store, StoreMap, Table } from "../../../src/data/index.ts";

export const ACCOUNTS = 300;
const FIRST_AMOUNT = 1000;
export const FIRST_SUM = ACCOUNTS * FIRST_AMOUNT;

const schema = { amount: "f64", note: "bytes" } as const;

export interface Accounts {
  readonly map: StoreMap<"u32">;
  readonly table: Table<typeof schema>;
  readonly counts: StoreMap;
}

const bytesOf = (amount: number, padding: number): Uint8Array => {
  const bytes = new Uint8Array(8 + padding);
  new DataView(bytes.buffer).setFloat64(0, amount, true);
  return bytes;
};

const amountOf = (bytes: Uint8Array): number =>
  new DataView(bytes.buffer, bytes.byteOffset).getFloat64(0, true);

/** The accounts, made if there are none. */
export function openAccounts(store: Store): Accounts {
  const accounts = {
    map: store.map("accounts", { key: "u32" }),
    table: store.table("accounts-table", schema),
    counts: store.map("counts"),
  };
  if (accounts.table.length === 0) {
    store.batch(() => {
      for (let i = 0; i < ACCOUNTS; i++) {
        accounts.map.set(i, bytesOf(FIRST_AMOUNT, 0));
        accounts.table.push({ amount: FIRST_AMOUNT });
      }
      accounts.counts.set("transfers", bytesOf(0, 0));
    });
  }
  return accounts;
}

/** Moves an amount between two accounts, in the map and in the table. */
export function transfer(
  store: Store,
  { map, table, counts }: Accounts,
  random: (below: number) => number,
): void {
  const from = random(ACCOUNTS);
  const to = random(ACCOUNTS);
  if (from === to) return;
  const amount = random(100);
  const padding = random(400);
  store.batch(() => {
    const left = amountOf(map.get(from)!) - amount;
    const right = amountOf(map.get(to)!) + amount;
    map.set(from, bytesOf(left, padding));
    table.set(from, { amount: left, note: new Uint8Array(padding) });
    map.set(to, bytesOf(right, random(400)));
    table.set(to, { amount: right });
    counts.set("transfers", bytesOf(amountOf(counts.get("transfers")!) + 1, 0));
  });
}

/** The sums of both, and in how many accounts they differ. */
export function checkAccounts(store: Store): { map: number; table: number; differ: number } {
  const { map, table } = openAccounts(store);
  const sums = { map: 0, table: 0, differ: 0 };
  for (let i = 0; i < ACCOUNTS; i++) {
    const inMap = amountOf(map.get(i)!);
    const inTable = table.cell(i, "amount");
    sums.map += inMap;
    sums.table += inTable;
    if (inMap !== inTable) sums.differ++;
  }
  return sums;
}
