/** Remote sources over the S3 server of the tests. */
import { createCounters } from "../../../src/http/counters.ts";
import { CredentialOwner, providerOf } from "../../../src/http/credentials.ts";
import type { RemoteSource } from "../../../src/source/remote-source.ts";
import { KEYS } from "../../http/support/clients.ts";
import type { S3Server } from "../../http/support/s3-server.ts";

/** A source with an object of the server for each content. */
export async function remoteSource(
  server: S3Server,
  keys: readonly string[],
  { isSigned = true } = {},
): Promise<RemoteSource> {
  const owner = new CredentialOwner(providerOf(KEYS));
  await owner.ready();
  return {
    kind: "remote",
    contents: keys.map((key) => {
      const { bytes, etag, modifiedMs } = server.objects.get(key)!;
      const modified = new Date(modifiedMs).toUTCString();
      const identity = { sizeBytes: bytes.byteLength, etag, modified };
      return { url: `${server.endpoint}/bucket/${key}`, identity };
    }),
    signing: isSigned ? { credentials: owner.handle, region: "us-east-1" } : null,
    counters: createCounters(),
  };
}
