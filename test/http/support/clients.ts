/** Clients for tests: impatient, with short delays. */
import { Bucket } from "../../../src/http/bucket.ts";
import { Client, type ClientOptions } from "../../../src/http/client.ts";
import { CredentialOwner, providerOf } from "../../../src/http/credentials.ts";
import { parseS3Place } from "../../../src/http/s3-options.ts";
import { openSigner } from "../../../src/http/sign.ts";
import type { S3Server } from "./s3-server.ts";

export const KEYS = { accessKeyId: "AKIDTEST", secretAccessKey: "secret-of-the-test" } as const;

export const IMPATIENT = {
  retry: { delayMs: 1, delayMsMax: 5 },
  patience: { answerMs: 500, stallMs: 100 },
} as const;

export function plainClient(options: ClientOptions = {}): Client {
  return new Client({ ...IMPATIENT, ...options });
}

export async function bucketOf(
  server: Pick<S3Server, "endpoint">,
  options: ClientOptions = {},
): Promise<Bucket> {
  const place = parseS3Place("s3://bucket/some/prefix", { endpoint: server.endpoint });
  const owner = new CredentialOwner(providerOf(KEYS));
  await owner.ready();
  const signer = await openSigner(owner.handle, place.region);
  return new Bucket(place, plainClient({ signer, ...options }));
}
