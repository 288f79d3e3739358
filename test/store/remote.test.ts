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
