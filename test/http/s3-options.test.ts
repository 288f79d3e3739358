/** URLs and options of S3, and the addresses of objects. */
import { expect, test } from "bun:test";
import { objectUrl, parseS3Place } from "../../src/http/s3-options.ts";

const BAD_URLS = [
  "s3://",
  "s3:/bucket",
  "s3://Bucket/x",
  "s3://b/x",
  "s3://bucket/a//b",
  "s3://bucket/../x",
  "s3://bucket/a?x=1",
  "s3://bucket/a#b",
  "s3://user@bucket/a",
  "https://bucket/x",
];

test("parseS3Place addresses a bucket by host at AWS and by path elsewhere", () => {
  expect(parseS3Place("s3://bucket/a/b/", { region: "eu-north-1" }, {})).toEqual({
    url: "s3://bucket/a/b",
    bucket: "bucket",
    prefix: "a/b/",
    region: "eu-north-1",
    bucketUrl: "https://bucket.s3.eu-north-1.amazonaws.com/",
  });
  expect(parseS3Place("s3://my.bucket", {}, {}).bucketUrl).toBe(
    "https://s3.us-east-1.amazonaws.com/my.bucket/",
  );
  const endpoint = "http://localhost:9000/base";
  expect(parseS3Place("s3://bucket", { endpoint }, {})).toMatchObject({
    prefix: "",
    bucketUrl: "http://localhost:9000/base/bucket/",
  });
  expect(parseS3Place("s3://bucket", { endpoint, pathStyle: false }, {}).bucketUrl).toBe(
    "http://bucket.localhost:9000/base/",
  );
  expect(parseS3Place("s3://bucket", { region: "cn-north-1" }, {}).bucketUrl).toBe(
    "https://bucket.s3.cn-north-1.amazonaws.com.cn/",
  );
});

test("parseS3Place reads region and endpoint from the environment", () => {
  const env = { AWS_REGION: "eu-west-3", AWS_ENDPOINT_URL: "http://one", AWS_ENDPOINT_URL_S3: "" };
  expect(parseS3Place("s3://bucket", { endpoint: "http://two" }, env)).toMatchObject({
    region: "eu-west-3",
    bucketUrl: "http://two/bucket/",
  });
  const { AWS_ENDPOINT_URL_S3: _, ...rest } = env;
  expect(parseS3Place("s3://bucket", {}, rest).bucketUrl).toBe("http://one/bucket/");
});

test("parseS3Place names the bad part of a place", () => {
  for (const url of BAD_URLS) expect(() => parseS3Place(url, {}, {})).toThrow(TypeError);
  for (const endpoint of ["localhost:9000", "ftp://x", "http://x/?y", "http://u:p@x"])
    expect(() => parseS3Place("s3://bucket", { endpoint }, {})).toThrow(TypeError);
  expect(() => parseS3Place("s3://bucket", { region: "a/b" }, {})).toThrow(TypeError);
});

test("objectUrl encodes each part of a key", () => {
  const place = parseS3Place("s3://bucket", { endpoint: "http://host" }, {});
  expect(objectUrl(place, "a b/c+d&e/(f)'*!~")).toBe(
    "http://host/bucket/a%20b/c%2Bd%26e/%28f%29%27%2A%21~",
  );
});
