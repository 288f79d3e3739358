/**
 * Redis saves a snapshot of one instant by fork(2): BGSAVE. It saves as much data, uncompressed and
 * without checksums, in strings of 4 KiB. The pause is the fork. A program that writes meanwhile
 * also pays for copies on write.
 */
import { RedisClient } from "bun";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";

export const REDIS = "Redis BGSAVE";
const VALUE_BYTES = 4096;

export function hasRedis(): boolean {
  return Bun.which("redis-server") !== null;
}

export interface RedisFigures {
  readonly saveSeconds: number;
  readonly pauseSeconds: number;
  readonly writtenBytes: number;
}

/** Fills a Redis server of its own with `bytes`, and saves once. */
export async function measureRedis(directory: string, bytes: number): Promise<RedisFigures> {
  const socket = join(directory, "redis.sock");
  const options = {
    port: "0",
    unixsocket: socket,
    dir: directory,
    dbfilename: "redis.rdb",
    save: "",
    rdbcompression: "no",
    rdbchecksum: "no",
    appendonly: "no",
    "enable-debug-command": "yes",
  };
  const flags = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value]);
  const server = Bun.spawn(["redis-server", ...flags], { stdout: "ignore", stderr: "ignore" });
  try {
    while (!existsSync(socket) && server.exitCode === null) await Bun.sleep(20);
    const client = new RedisClient(`redis+unix://${socket}`);
    await client.send("DEBUG", ["POPULATE", `${bytes / VALUE_BYTES}`, "key", `${VALUE_BYTES}`]);
    const began = performance.now();
    await client.send("BGSAVE", []);
    while ((await field(client, "Persistence", "rdb_bgsave_in_progress")) !== "0")
      await Bun.sleep(5);
    const saveSeconds = (performance.now() - began) / 1000;
    if ((await field(client, "Persistence", "rdb_last_bgsave_status")) !== "ok")
      throw new Error("Redis could not save");
    const forkMicroseconds = Number(await field(client, "Stats", "latest_fork_usec"));
    const writtenBytes = Bun.file(join(directory, "redis.rdb")).size;
    client.close();
    return { saveSeconds, pauseSeconds: forkMicroseconds / 1e6, writtenBytes };
  } finally {
    server.kill("SIGKILL");
    await server.exited;
    for (const name of ["redis.rdb", "redis.sock"]) rmSync(join(directory, name), { force: true });
  }
}

async function field(client: RedisClient, section: string, name: string): Promise<string> {
  const info = String(await client.send("INFO", [section]));
  return new RegExp(`^${name}:(.*?)\\r?$`, "m").exec(info)![1]!;
}
