/** A store in S3: a writer, and a reader that follows it. */
import { afterAll, expect, test } from "bun:test";
import { Store } from "../../src/data/index.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { S3Server } from "../http/support/s3-server.ts";
import { namesIn, PLACE, s3Of } from "../remote/support/store.ts";
import { hex } from "./support/support.ts";

const text = (value: string) => new TextEncoder().encode(value);
afterAll(() => terminateIdleThreads());

test("Store.open of an s3:// place makes, restores and refreshes a store", async () => {
  await using server = await S3Server.start();
  const options = { s3: s3Of(server), background: false };
  await expect(Store.open(PLACE, options)).rejects.toMatchObject({ code: "ERR_NO_CHECKPOINT" });
  const writer = await Store.open(PLACE, { ...options, create: true });
  writer.map("m").set("a", text("1"));
  await writer.checkpoint();
  await using reader = await Store.open(PLACE, { ...options, readOnly: true });
  expect(hex(reader.map("m").get("a"))).toBe(hex(text("1")));
  writer.map("m").set("a", text("2"));
  await writer.close();
  expect(await reader.refresh()).toBe(true);
  expect(hex(reader.map("m").get("a"))).toBe(hex(text("2")));
  expect(namesIn(server).filter((name) => name.startsWith("manifest/"))).toHaveLength(2);
});

/** The names of the newest checkpoint's map, and their values. */
async function published(server: S3Server): Promise<Record<string, string>> {
  const options = { s3: s3Of(server), background: false, readOnly: true };
  await using store = await Store.open(PLACE, options);
  const entries = [...store.map("m").entries()];
  return Object.fromEntries(entries.map(([key, value]) => [key, Buffer.from(value).toString()]));
}

for (const isNew of [true, false]) {
  const made = isNew ? "made" : "restored";
  for (const first of [0, 1] as const) {
    test(`Store.checkpoint of two writers that ${made} it loses nothing (${first})`, async () => {
      await using server = await S3Server.start();
      const options = { s3: s3Of(server), background: false, create: true };
      if (!isNew) await (await Store.open(PLACE, options)).close();
      const open = () => Store.open(PLACE, options);
      const stores = [await open(), await open()] as const;
      const [winner, loser] = [stores[first], stores[1 - first]!];
      winner.map("m").set("first", text("1"));
      await winner.checkpoint();
      loser.map("m").set("second", text("2"));
      const conflict = { code: "ERR_CHECKPOINT_CONFLICT" };
      await expect(loser.checkpoint()).rejects.toMatchObject(conflict);
      await expect(loser.close()).rejects.toMatchObject(conflict);
      expect(await published(server)).toEqual({ first: "1" });
      winner.map("m").set("third", text("3"));
      await winner.checkpoint();
      loser[Symbol.dispose]();

      const again = await open();
      again.map("m").set("second", text("2"));
      await again.close();
      expect(await published(server)).toEqual({ first: "1", second: "2", third: "3" });
      await expect(winner.checkpoint()).rejects.toMatchObject(conflict);
      winner[Symbol.dispose]();
    });
  }
}
