/**
 * RemotePlace: an `s3://bucket/prefix` or `https://host/path` of a checkpoint, opened by one
 * thread: its client, its signing, and the credentials that other threads share.
 *
 * Over HTTP, a place is a checkpoint's directory on a web server: `meta` and `pages-<id>`. It can
 * only be read.
 */
import { Bucket } from "../http/bucket.ts";
import { Client, type ClientOptions } from "../http/client.ts";
import { type CounterHandle, createCounters } from "../http/counters.ts";
import { CredentialOwner, providerOf } from "../http/credentials.ts";
import { isS3Url, parseS3Place, type S3Options } from "../http/s3-options.ts";
import { shownPlace } from "../http/shown-url.ts";
import { openSigner, type Signing } from "../http/sign.ts";
import { absolutePath } from "../checkpoint/staging.ts";
import { quote } from "../../ffi/index.ts";

/** True for places that are reached by requests. All others are directories. */
export function isRemote(where: string): boolean {
  return isS3Url(where) || isHttpUrl(where);
}

/**
 * A place that stays the same when the program changes its directory: an absolute path, or the URL
 * as given.
 *
 * @throws {TypeError} for anything but a directory or a URL of s3, http or https
 */
export function resolvePlace(where: string): string {
  if (typeof where !== "string") return absolutePath(where);
  if (isRemote(where)) return where;
  if (hasScheme(where))
    throw new TypeError(
      "Expected a directory, or a URL that begins with s3://, https:// or http://, " +
        `got ${quote(shownPlace(where))}`,
    );
  return absolutePath(where);
}

/** True for URLs of any kind, which are no directories. */
export function hasScheme(where: string): boolean {
  // Most places are directories, and the first use of an expression takes 20 µs.
  return where.includes("://") && /^[a-z][a-z0-9+.-]*:\/\//i.test(where);
}

function isHttpUrl(where: string): boolean {
  return where.startsWith("http://") || where.startsWith("https://");
}

/** A place's URL in the form of `RemotePlace.url`, without opening it. */
export function placeUrl(where: string): string {
  return where.replace(/[?#].*$/, "").replace(/\/+$/, "");
}

export interface RemotePlace {
  /** For messages: without query and without a slash at its end. */
  readonly url: string;
  readonly client: Client;
  readonly counters: CounterHandle;
  /** Null: requests are not signed. */
  readonly signing: Signing | null;
  /** Null over HTTP. */
  readonly bucket: Bucket | null;
  /** The address of a file over HTTP. */
  fileUrl(name: string): string;
  /** Renews credentials that will expire soon. Called before requests of this thread. */
  ready(): Promise<void>;
  /** Ends the renewal of credentials. Idempotent. */
  close(): void;
}

export interface PlaceOptions extends Pick<ClientOptions, "signal" | "retry" | "patience"> {
  readonly s3?: S3Options | undefined;
}

/**
 * @throws {TypeError} for a bad URL or bad options
 * @throws {UnsupportedError} without credentials or aws4fetch
 * @throws the error of the credentials' provider
 */
export async function openPlace(url: string, options: PlaceOptions = {}): Promise<RemotePlace> {
  const counters = createCounters();
  const { s3 = {}, ...clientOptions } = options;
  if (!isS3Url(url)) return openHttp(url, new Client({ counters, ...clientOptions }), counters);
  const place = parseS3Place(url, s3);
  const owner = new CredentialOwner(providerOf(s3));
  await owner.ready();
  const signing = { credentials: owner.handle, region: place.region };
  const signer = await openSigner(signing.credentials, signing.region);
  const client = new Client({ signer, counters, ...clientOptions });
  return {
    url: place.url,
    client,
    counters,
    signing,
    bucket: new Bucket(place, client),
    fileUrl: (name) => `${place.bucketUrl}${place.prefix}${name}`,
    ready: () => owner.ready(),
    close: () => owner.close(),
  };
}

/**
 * Opens something at a place. Once `given` is aborted, it rejects with its reason, and the requests
 * of `open`, which get a signal for it, end. Requests after it are not affected.
 *
 * @param discard called with what was opened all the same
 */
export async function openUnlessAborted<T>(
  given: AbortSignal | undefined,
  open: (signal: AbortSignal | undefined) => Promise<T>,
  discard: (opened: T) => void,
): Promise<T> {
  if (given === undefined) return await open(undefined);
  given.throwIfAborted();
  const controller = new AbortController();
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = () => {
    controller.abort(given.reason);
    // A provider of credentials may never answer.
    opening.then(discard, () => undefined);
    reject(given.reason);
  };
  given.addEventListener("abort", onAbort, { once: true });
  const opening = open(controller.signal);
  try {
    return await Promise.race([opening, promise]);
  } finally {
    given.removeEventListener("abort", onAbort);
  }
}

/** The bucket of a place in S3. @throws {TypeError} for other places @throws as `openPlace` */
export async function openBucketOf(url: string, options: PlaceOptions): Promise<Bucket> {
  if (!isS3Url(url))
    throw new TypeError(`Expected a URL as s3://bucket/prefix, got ${quote(shownPlace(url))}`);
  const { bucket } = await openPlace(url, options);
  return bucket!;
}

function openHttp(url: string, client: Client, counters: CounterHandle): RemotePlace {
  const base = URL.parse(url);
  if (base === null || !isHttpUrl(url) || base.username !== "" || base.hash !== "")
    throw new TypeError(
      `Expected the URL of a checkpoint's directory, got ${quote(shownPlace(url))}`,
    );
  const { search } = base;
  base.search = "";
  const text = base.href.replace(/\/+$/, "");
  return {
    url: text,
    client,
    counters,
    signing: null,
    bucket: null,
    // A query may contain a signature that is valid for the whole directory.
    fileUrl: (name) => `${text}/${name}${search}`,
    ready: async () => undefined,
    close: () => undefined,
  };
}
