/**
 * Signs requests for S3 (AWS Signature Version 4) with `aws4fetch`, an optional dependency.
 *
 * Bodies are not part of the signature: each write carries a CRC-32 that the store checks, and
 * hashing them would cost more than sending them.
 */
import { UnsupportedError } from "../errors/errors.ts";
import { CredentialReader, type CredentialHandle } from "./credentials.ts";

/** What a thread needs to sign. Cloneable. */
export interface Signing {
  readonly credentials: CredentialHandle;
  readonly region: string;
}

export interface Signable {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** Returns the headers to send. */
export type Signer = (request: Signable) => Promise<Record<string, string>>;

async function importSigner() {
  try {
    return (await import("aws4fetch")).AwsV4Signer;
  } catch (cause) {
    throw new UnsupportedError("S3 needs the package aws4fetch: npm install aws4fetch", { cause });
  }
}

/** @throws {UnsupportedError} if aws4fetch is not installed */
export async function openSigner(handle: CredentialHandle, region: string): Promise<Signer> {
  const AwsV4Signer = await importSigner();
  const reader = new CredentialReader(handle);
  // Keys derived from the secret: one a day and credentials.
  const cache = new Map<string, ArrayBuffer>();
  return async ({ method, url, headers }) => {
    const { accessKeyId, secretAccessKey, sessionToken } = reader.read();
    const signer = new AwsV4Signer({
      method,
      url,
      headers: { "x-amz-content-sha256": "UNSIGNED-PAYLOAD", ...headers },
      service: "s3",
      region,
      accessKeyId,
      secretAccessKey,
      cache,
      ...(sessionToken === undefined ? {} : { sessionToken }),
    });
    const signed = await signer.sign();
    return Object.fromEntries(signed.headers as unknown as Iterable<[string, string]>);
  };
}
