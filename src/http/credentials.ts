/**
 * Credentials, and how threads share them.
 *
 * The thread that opened a place owns the provider. It writes the credentials into shared memory
 * and renews them before they expire; other threads read them there. So threads do not wait for the
 * event loop of the program, unless that is busy for minutes.
 *
 * Shared words: only the owner writes. `Version` is odd while the bytes change. A reader accepts
 * the bytes only if the version is even, and the same before and after.
 */
import { UnsupportedError } from "../errors/errors.ts";

/** The shape of the AWS SDK's `AwsCredentialIdentity`. */
export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string | undefined;
  readonly expiration?: Date | undefined;
}

/** The shape of the AWS SDK's credential providers, such as `fromNodeProviderChain()`. */
export type CredentialProvider = () => Promise<Credentials>;

/** Environment variables by name. */
export type Environment = Readonly<Record<string, string | undefined>>;

export interface CredentialOptions {
  /** Default: AWS_ACCESS_KEY_ID, with AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN. */
  readonly accessKeyId?: string;
  readonly secretAccessKey?: string;
  readonly sessionToken?: string;
  /** Called when credentials are needed, and again before they expire. As in the AWS SDK. */
  readonly credentials?: CredentialProvider;
}

/** Indexes of the shared words. */
const Word = { Version: 0, LengthBytes: 1 } as const;
const HEADER_BYTES = 8;
/** Session tokens have no stated limit; those of AWS are below 4 KiB. */
const CREDENTIALS_BYTES_MAX = 2 ** 14;
/** Credentials are renewed this long before they expire. */
const RENEW_MS = 5 * 60_000;
const RENEW_RETRY_MS = 10_000;

/** Shared with other threads by postMessage. */
export type CredentialHandle = SharedArrayBuffer;

/** The owner's side. */
export class CredentialOwner {
  readonly handle: CredentialHandle = new SharedArrayBuffer(HEADER_BYTES + CREDENTIALS_BYTES_MAX);
  private readonly words = new Int32Array(this.handle, 0, HEADER_BYTES / 4);
  private readonly provider: CredentialProvider;
  private expiresMs = Number.POSITIVE_INFINITY;
  private timer: Timer | undefined;
  private renewing: Promise<void> | undefined;
  private isClosed = false;

  constructor(provider: CredentialProvider) {
    this.provider = provider;
  }

  /**
   * Resolves when the shared credentials are valid for at least a minute.
   * @throws the provider's error
   */
  async ready(): Promise<void> {
    const isFresh = Atomics.load(this.words, Word.LengthBytes) > 0;
    if (isFresh && this.expiresMs - Date.now() > 60_000) return;
    await this.renew();
  }

  private renew(): Promise<void> {
    this.renewing ??= this.ask().finally(() => {
      this.renewing = undefined;
    });
    return this.renewing;
  }

  private async ask(): Promise<void> {
    const { accessKeyId, secretAccessKey, sessionToken, expiration } = await this.provider();
    const told = { accessKeyId, secretAccessKey, sessionToken };
    if (typeof accessKeyId !== "string" || typeof secretAccessKey !== "string")
      throw new TypeError("Expected credentials() to give accessKeyId and secretAccessKey");
    const bytes = new TextEncoder().encode(JSON.stringify(told));
    if (bytes.length > CREDENTIALS_BYTES_MAX)
      throw new RangeError(
        `Expected credentials of at most ${CREDENTIALS_BYTES_MAX} bytes, got ${bytes.length}`,
      );
    Atomics.add(this.words, Word.Version, 1);
    new Uint8Array(this.handle, HEADER_BYTES).set(bytes);
    Atomics.store(this.words, Word.LengthBytes, bytes.length);
    Atomics.add(this.words, Word.Version, 1);
    this.expiresMs = expiration?.getTime() ?? Number.POSITIVE_INFINITY;
    this.schedule(this.expiresMs - Date.now() - RENEW_MS);
  }

  private schedule(waitMs: number): void {
    clearTimeout(this.timer);
    if (this.isClosed || waitMs === Number.POSITIVE_INFINITY) return;
    const boundedMs = Math.min(Math.max(waitMs, RENEW_RETRY_MS), 2 ** 31 - 1);
    this.timer = setTimeout(() => {
      // The next request of this thread throws the provider's error. This only tries again.
      this.renew().catch(() => this.schedule(RENEW_RETRY_MS));
    }, boundedMs);
    this.timer.unref();
  }

  /** Ends the renewal. Idempotent. */
  close(): void {
    this.isClosed = true;
    clearTimeout(this.timer);
  }
}

/** A thread's view of shared credentials. */
export class CredentialReader {
  private readonly handle: CredentialHandle;
  private readonly words: Int32Array;
  private version = -1;
  private seen: Credentials | undefined;

  constructor(handle: CredentialHandle) {
    this.handle = handle;
    this.words = new Int32Array(handle, 0, HEADER_BYTES / 4);
  }

  /** Precondition: the owner has been ready. */
  read(): Credentials {
    for (;;) {
      const before = Atomics.load(this.words, Word.Version);
      if (before === this.version && this.seen !== undefined) return this.seen;
      if ((before & 1) !== 0) continue;
      const lengthBytes = Atomics.load(this.words, Word.LengthBytes);
      const bytes = new Uint8Array(this.handle, HEADER_BYTES, lengthBytes).slice();
      if (Atomics.load(this.words, Word.Version) !== before) continue;
      this.seen = JSON.parse(new TextDecoder().decode(bytes)) as Credentials;
      this.version = before;
      return this.seen;
    }
  }
}

/**
 * The provider of `options`: its function, its keys, or the AWS_* variables.
 * @throws {TypeError} if only one of two keys is given
 * @throws {UnsupportedError} if there are no credentials
 */
export function providerOf(
  options: CredentialOptions = {},
  env: Environment = process.env,
): CredentialProvider {
  const { credentials, accessKeyId, secretAccessKey, sessionToken } = options;
  if (credentials !== undefined) {
    // Not the value: an object may have the keys themselves.
    if (typeof credentials !== "function")
      throw new TypeError(
        `Expected s3.credentials to be a function, got a value of type ${typeof credentials}; ` +
          "keys are s3.accessKeyId and s3.secretAccessKey",
      );
    return credentials;
  }
  if (accessKeyId !== undefined || secretAccessKey !== undefined)
    return fixed({ accessKeyId, secretAccessKey, sessionToken }, "s3.accessKeyId");
  if (env["AWS_ACCESS_KEY_ID"] === undefined)
    throw new UnsupportedError(
      "There are no credentials for S3: set s3.accessKeyId, s3.credentials or AWS_ACCESS_KEY_ID",
    );
  const fromEnv = {
    accessKeyId: env["AWS_ACCESS_KEY_ID"],
    secretAccessKey: env["AWS_SECRET_ACCESS_KEY"],
    sessionToken: env["AWS_SESSION_TOKEN"],
  };
  return fixed(fromEnv, "AWS_ACCESS_KEY_ID");
}

function fixed(
  given: Record<"accessKeyId" | "secretAccessKey" | "sessionToken", string | undefined>,
  name: string,
): CredentialProvider {
  const { accessKeyId, secretAccessKey, sessionToken } = given;
  if (!accessKeyId || !secretAccessKey)
    throw new TypeError(`Expected both ${name} and its secret, got only one of them`);
  return async () => ({ accessKeyId, secretAccessKey, sessionToken });
}
