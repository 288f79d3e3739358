/** Credentials: their origin, their way to other threads, and their renewal. */
import { describe, expect, test } from "bun:test";
import { fromEnv } from "@aws-sdk/credential-provider-env";
import {
  CredentialOwner,
  type CredentialProvider,
  CredentialReader,
  providerOf,
} from "../../src/http/credentials.ts";
import { UnsupportedError } from "../../src/errors/errors.ts";

const keys = { accessKeyId: "AKID", secretAccessKey: "secret" };

describe("providerOf", () => {
  test("prefers the function, then the keys, then the environment", async () => {
    const env = { AWS_ACCESS_KEY_ID: "E", AWS_SECRET_ACCESS_KEY: "es", AWS_SESSION_TOKEN: "et" };
    const credentials = async () => ({ accessKeyId: "F", secretAccessKey: "fs" });
    expect(await providerOf({ ...keys, credentials }, env)()).toMatchObject({ accessKeyId: "F" });
    expect(await providerOf(keys, env)()).toEqual({ ...keys, sessionToken: undefined });
    expect(await providerOf({}, env)()).toEqual({
      accessKeyId: "E",
      secretAccessKey: "es",
      sessionToken: "et",
    });
  });

  test("names the missing setting", () => {
    expect(() => providerOf({}, {})).toThrow(UnsupportedError);
    expect(() => providerOf({ accessKeyId: "A" }, {})).toThrow(TypeError);
    expect(() => providerOf({}, { AWS_ACCESS_KEY_ID: "A" })).toThrow(TypeError);
    expect(() => providerOf({ credentials: {} as unknown as CredentialProvider }, {})).toThrow(
      "Expected s3.credentials to be a function, got a value of type object; ",
    );
  });
});

describe("CredentialOwner", () => {
  test("accepts a provider of the AWS SDK", async () => {
    process.env["AWS_ACCESS_KEY_ID"] = "FROMSDK";
    process.env["AWS_SECRET_ACCESS_KEY"] = "sdk-secret";
    process.env["AWS_CREDENTIAL_EXPIRATION"] = new Date(Date.now() + 3_600_000).toISOString();
    try {
      const owner = new CredentialOwner(providerOf({ credentials: fromEnv() }));
      await owner.ready();
      expect(new CredentialReader(owner.handle).read()).toMatchObject({
        accessKeyId: "FROMSDK",
        secretAccessKey: "sdk-secret",
      });
      owner.close();
    } finally {
      delete process.env["AWS_ACCESS_KEY_ID"];
      delete process.env["AWS_SECRET_ACCESS_KEY"];
      delete process.env["AWS_CREDENTIAL_EXPIRATION"];
    }
  });

  test("asks again when the credentials expire within a minute", async () => {
    let calls = 0;
    const owner = new CredentialOwner(async () => ({
      ...keys,
      sessionToken: `token ${++calls}`,
      expiration: new Date(Date.now() + (calls === 1 ? 30_000 : 3_600_000)),
    }));
    const reader = new CredentialReader(owner.handle);
    await Promise.all([owner.ready(), owner.ready()]);
    expect(reader.read().sessionToken).toBe("token 1");
    await owner.ready();
    await owner.ready();
    expect(reader.read().sessionToken).toBe("token 2");
    expect(calls).toBe(2);
    owner.close();
  });

  test("rethrows the provider's error, and asks it again next time", async () => {
    let calls = 0;
    const owner = new CredentialOwner(async () => {
      if (calls++ === 0) throw new Error("no network");
      return keys;
    });
    await expect(owner.ready()).rejects.toThrow("no network");
    await owner.ready();
    expect(new CredentialReader(owner.handle).read().accessKeyId).toBe("AKID");
  });

  test("refuses values that are not credentials", async () => {
    const wrong = new CredentialOwner(async () => ({}) as never);
    await expect(wrong.ready()).rejects.toThrow(TypeError);
    const long = new CredentialOwner(async () => ({ ...keys, sessionToken: "x".repeat(2 ** 15) }));
    await expect(long.ready()).rejects.toThrow(RangeError);
  });
});

test("CredentialReader in another thread never sees a mixture of two", async () => {
  let number = 0;
  const owner = new CredentialOwner(async () => {
    const text = String(++number).repeat(1 + (number % 500));
    return { accessKeyId: text, secretAccessKey: text, expiration: new Date() };
  });
  await owner.ready();
  const source = `
    import { CredentialReader } from ${JSON.stringify(
      new URL("../../src/http/credentials.ts", import.meta.url).href,
    )};
    self.onmessage = ({ data }) => {
      const reader = new CredentialReader(data);
      let versions = 0, last;
      for (let i = 0; i < 200_000; i++) {
        const { accessKeyId, secretAccessKey } = reader.read();
        if (accessKeyId !== secretAccessKey) throw new Error("mixture");
        if (accessKeyId !== last) versions++;
        last = accessKeyId;
      }
      postMessage(versions);
    };`;
  const worker = new Worker(URL.createObjectURL(new Blob([source])));
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  worker.onmessage = ({ data }) => resolve(data);
  worker.onerror = (event) => reject(event.error ?? new Error(event.message));
  worker.postMessage(owner.handle);
  let isDone = false;
  void promise.finally(() => {
    isDone = true;
  });
  for (let i = 0; !isDone && i < 1_000_000; i++) {
    await owner.ready();
    if (i % 64 === 0) await new Promise((next) => setImmediate(next));
  }
  expect(await promise).toBeGreaterThan(0);
  worker.terminate();
  owner.close();
});
