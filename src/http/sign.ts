/**
 * Signs requests for S3 (AWS Signature Version 4) with `aws4fetch`, an optional dependency.
 *
 * Bodies are not part of the signature: each write carries a CRC-32 that the store checks, and
 * hashing them would cost more than sending them.
 */
import { UnsupportedError } from "../errors/errors.ts";
import { onUse, systemErrorOf } from "../errors/lazy-import.ts";
import { CredentialReader, type CredentialHandle, type Credentials } from "./credentials.ts";

/** The part that a thread needs to sign. postMessage can copy it. */
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

const importPackage = onUse(async () => {
  // A bundler lets a package be absent only if its import is in a `try` block.
  try {
    return await import("aws4fetch");
  } catch (cause) {
    const message = "S3 needs the package aws4fetch: npm install aws4fetch";
    throw systemErrorOf(cause) ?? new UnsupportedError(message, { cause });
  }
});

/** Imports aws4fetch, if it is installed. */
export async function warmSigner(): Promise<void> {
  await Promise.allSettled([importPackage()]);
}

/** Stores accept signatures up to 15 minutes old. A read is signed once in this time. */
const REUSE_MS = 30_000;
const REUSED_MAX = 256;

interface Signed {
  readonly credentials: Credentials;
  readonly atMs: number;
  readonly headers: Readonly<Record<string, string>>;
}

/**
 * A signature covers no range, so all reads of an object have the same one: signing 1,024 ranges
 * took as much of a processor as copying their 2 GiB into place.
 *
 * @throws {UnsupportedError} if aws4fetch is not installed
 */
export async function openSigner(handle: CredentialHandle, region: string): Promise<Signer> {
  const { AwsV4Signer } = await importPackage();
  const reader = new CredentialReader(handle);
  // Keys derived from the secret: one a day and credentials.
  const cache = new Map<string, ArrayBuffer>();
  const reads = new Map<string, Signed>();

  const sign = async ({ method, url, headers }: Signable, credentials: Credentials) => {
    const { accessKeyId, secretAccessKey, sessionToken } = credentials;
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

  const signRead = async (request: Signable, credentials: Credentials) => {
    const key = JSON.stringify([request.method, request.url, request.headers]);
    const known = reads.get(key);
    const nowMs = performance.now();
    if (known?.credentials === credentials && nowMs - known.atMs < REUSE_MS) return known.headers;
    const headers = await sign(request, credentials);
    if (reads.size >= REUSED_MAX) reads.clear();
    reads.set(key, { credentials, atMs: nowMs, headers });
    return headers;
  };

  return async (request) => {
    const credentials = reader.read();
    if (request.method !== "GET") return sign(request, credentials);
    const { range, ...headers } = request.headers;
    const signed = await signRead({ ...request, headers }, credentials);
    return range === undefined ? { ...signed } : { ...signed, range };
  };
}
