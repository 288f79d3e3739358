/**
 * The address of a bucket: `s3://bucket/prefix`, the options of the program, and the AWS_*
 * variables. Credentials are not part of it (credentials.ts), so it may be copied and printed.
 */
import { checkBoolean, quote, showValue } from "../../ffi/index.ts";
import type { CredentialOptions, Environment } from "./credentials.ts";
import { shownPlace } from "./shown-url.ts";

/** Access to S3, or to a server with its protocol. */
export interface S3Options extends CredentialOptions {
  /** Default: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, else AWS's endpoint of the region. */
  readonly endpoint?: string;
  /** Default: AWS_REGION, AWS_DEFAULT_REGION, else "us-east-1". */
  readonly region?: string;
  /** The bucket in the path instead of the host's name. Default: true for endpoints of your own. */
  readonly pathStyle?: boolean;
}

/** A prefix of a bucket. postMessage can copy it. */
export interface S3Place {
  /** As the program passed it: `s3://bucket/prefix`, without a slash at the end. */
  readonly url: string;
  readonly bucket: string;
  /** Empty, or ends with "/". */
  readonly prefix: string;
  readonly region: string;
  /** URL of the bucket, ends with "/". */
  readonly bucketUrl: string;
}

const BUCKET = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;

export function isS3Url(where: string): boolean {
  return where.startsWith("s3://");
}

/** @throws {TypeError} naming the error in the URL or the options */
export function parseS3Place(
  url: string,
  options: S3Options = {},
  env: Environment = process.env,
): S3Place {
  const match = /^s3:\/\/([^/?#]*)(?:\/([^?#]*))?$/.exec(url);
  const bucket = match?.[1] ?? "";
  const shown = shownPlace(url);
  if (match === null || bucket === "")
    throw new TypeError(`Expected a URL as s3://bucket/prefix, got ${quote(shown)}`);
  if (!BUCKET.test(bucket))
    throw new TypeError(
      "Expected a bucket's name of 3 to 63 lowercase letters, digits, dots and hyphens, " +
        `got ${quote(shown.split("/")[2]!)} in ${quote(shown)}`,
    );
  const path = (match[2] ?? "").replace(/\/+$/, "");
  const segments = path === "" ? [] : path.split("/");
  if (segments.some((segment) => segment === "" || segment === "." || segment === ".."))
    throw new TypeError(`Expected a prefix without empty parts, "." or "..", got ${quote(shown)}`);
  const region = options.region ?? env["AWS_REGION"] ?? env["AWS_DEFAULT_REGION"] ?? "us-east-1";
  return {
    url: `s3://${[bucket, ...segments].join("/")}`,
    bucket,
    prefix: segments.map((segment) => `${segment}/`).join(""),
    region,
    bucketUrl: bucketUrl(bucket, region, options, env),
  };
}

function bucketUrl(bucket: string, region: string, options: S3Options, env: Environment): string {
  if (typeof region !== "string" || !/^[a-z0-9-]+$/.test(region))
    throw new TypeError(`Expected region to be like "eu-central-1", got ${showValue(region)}`);
  checkBoolean("s3.pathStyle", options.pathStyle);
  const given = options.endpoint ?? env["AWS_ENDPOINT_URL_S3"] ?? env["AWS_ENDPOINT_URL"];
  const endpoint = parseEndpoint(given ?? awsEndpoint(region));
  // A certificate for *.s3.region.amazonaws.com does not cover buckets with dots in their names.
  const pathStyle = options.pathStyle ?? (given !== undefined || bucket.includes("."));
  if (pathStyle) endpoint.pathname += `${bucket}/`;
  else endpoint.hostname = `${bucket}.${endpoint.hostname}`;
  return endpoint.href;
}

function awsEndpoint(region: string): string {
  return `https://s3.${region}.amazonaws.com${region.startsWith("cn-") ? ".cn" : ""}`;
}

function parseEndpoint(endpoint: string): URL {
  const url = typeof endpoint === "string" ? URL.parse(endpoint) : null;
  const isHttp = url?.protocol === "http:" || url?.protocol === "https:";
  if (url === null || !isHttp || url.search !== "" || url.hash !== "")
    throw new TypeError(
      `Expected endpoint to be an http or https URL, got ${showEndpoint(endpoint)}`,
    );
  if (url.username !== "" || url.password !== "")
    throw new TypeError("Expected endpoint without a user name and password");
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return url;
}

function showEndpoint(endpoint: unknown): string {
  if (typeof endpoint !== "string") return `a value of type ${typeof endpoint}`;
  const scheme = endpoint.includes("://") ? "" : "https://";
  return quote(shownPlace(scheme + endpoint).slice(scheme.length));
}

/** The address of an object of the bucket; each part of the key is encoded. */
export function objectUrl(place: S3Place, key: string): string {
  return place.bucketUrl + key.split("/").map(encodePart).join("/");
}

/** In S3's form for signing: all but unreserved characters are encoded. */
function encodePart(part: string): string {
  return encodeURIComponent(part).replace(
    /[!'()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
