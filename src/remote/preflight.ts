/**
 * Preflight: checks that the store keeps the condition that publishing depends on. Some stores
 * ignore `If-None-Match: *` and overwrite, so two writers would both believe that they had
 * succeeded.
 *
 * It writes an object with a name of its own twice; the second write must be refused. It runs once
 * for each process and bucket.
 */
import { UnsupportedError } from "../errors/errors.ts";
import { RemoteError } from "../errors/remote-errors.ts";
import type { Bucket } from "../http/bucket.ts";
import { preflightPrefix } from "./keys.ts";

const passed = new Set<string>();

/** @throws {UnsupportedError} if the store ignores conditions @throws {RemoteError} */
export async function checkConditions(bucket: Bucket): Promise<void> {
  const { place } = bucket;
  if (passed.has(place.bucketUrl)) return;
  const key = preflightPrefix(place) + crypto.randomUUID();
  const body = new TextEncoder().encode("pgalloc checks that writes can be conditional");
  // Without a condition: a lost answer and a retry must not look like a refusal.
  await bucket.put(key, body);
  const isRefused = await bucket.put(key, body, { ifAbsent: true }).then(
    () => false,
    (error: unknown) => {
      if (error instanceof RemoteError && error.status === 412) return true;
      throw error;
    },
  );
  await bucket.delete(key);
  if (!isRefused)
    throw new UnsupportedError(
      `The store of ${place.url} ignores If-None-Match, so two writers could overwrite each other`,
    );
  passed.add(place.bucketUrl);
}

/** For tests: forgets the stores that have passed. */
export function forgetPreflights(): void {
  passed.clear();
}
