/**
 * Bucket: the requests of S3's protocol that checkpoints need. Keys are complete: they include the
 * prefix.
 */
import { RemoteError } from "../errors/remote-errors.ts";
import type { Answer } from "./answer.ts";
import type { Client, SendOptions } from "./client.ts";
import { Counter } from "./counters.ts";
import { objectUrl, type S3Place } from "./s3-options.ts";
import { elementsOf, encode, textOf } from "./xml.ts";

export interface ListedObject {
  readonly key: string;
  readonly sizeBytes: number;
  /** By the server's clock. */
  readonly modifiedMs: number;
  /** Empty if the server sends none. */
  readonly etag: string;
}

export interface ListedUpload {
  readonly key: string;
  readonly uploadId: string;
  readonly initiatedMs: number;
}

export interface UploadedPart {
  readonly number: number;
  readonly etag: string;
  readonly crc: string;
}

/** A CRC-32 as S3 writes it: base64 of four bytes, the highest first. */
export function crcOf(bytes: Uint8Array): string {
  const crc = Buffer.allocUnsafe(4);
  crc.writeUInt32BE(Bun.hash.crc32(bytes));
  return crc.toString("base64");
}

export class Bucket {
  readonly place: S3Place;
  readonly client: Client;

  constructor(place: S3Place, client: Client) {
    this.place = place;
    this.client = client;
  }

  url(key: string, query: Readonly<Record<string, string>> = {}): string {
    const parts = Object.entries(query).map(([name, value]) => `${name}=${quote(value)}`);
    return objectUrl(this.place, key) + (parts.length === 0 ? "" : `?${parts.join("&")}`);
  }

  /** Undefined if there is no such object. */
  async head(key: string): Promise<{ readonly sizeBytes: number } | undefined> {
    try {
      return await this.client.send({ method: "HEAD", url: this.url(key) }, async (answer) => {
        const { lengthBytes } = answer;
        if (lengthBytes === undefined)
          throw answer.error("malformed", "The answer to HEAD has no length");
        return { sizeBytes: lengthBytes };
      });
    } catch (error) {
      if ((error as { failure?: string }).failure === "missing") return undefined;
      throw error;
    }
  }

  /**
   * Writes an object. With `ifAbsent` it fails with "changed" if there is one. A retry whose first
   * attempt succeeded fails in the same way.
   */
  async put(
    key: string,
    body: Uint8Array,
    options: SendOptions & { readonly ifAbsent?: boolean } = {},
  ): Promise<void> {
    const headers = {
      "content-type": "application/octet-stream",
      "x-amz-checksum-crc32": crcOf(body),
      ...(options.ifAbsent === true ? { "if-none-match": "*" } : {}),
    };
    await this.client.send({ method: "PUT", url: this.url(key), headers, body }, ended, options);
    this.client.counters[Counter.SentBytes]! += body.byteLength;
  }

  /** Deletes an object. Succeeds also if there is none. */
  async delete(key: string): Promise<void> {
    try {
      await this.client.send({ method: "DELETE", url: this.url(key) }, ended);
    } catch (error) {
      if ((error as { failure?: string }).failure !== "missing") throw error;
    }
  }

  /** Objects whose key begins with `prefix`, in the order of keys. */
  async *list(prefix: string, options: { pageSize?: number } = {}): AsyncGenerator<ListedObject> {
    let token: string | undefined;
    do {
      const query = {
        "list-type": "2",
        prefix,
        "encoding-type": "url",
        ...(options.pageSize === undefined ? {} : { "max-keys": `${options.pageSize}` }),
        ...(token === undefined ? {} : { "continuation-token": token }),
      };
      const request = { method: "GET", url: this.url("", query) } as const;
      const xml = await this.client.send(request, (answer) => listing(answer, "ListBucketResult"));
      for (const entry of elementsOf(xml, "Contents")) yield this.objectOf(entry);
      const next = isTruncated(xml) ? textOf(xml, "NextContinuationToken") : undefined;
      if (next !== undefined && next === token) throw this.endless();
      token = next;
    } while (token !== undefined);
  }

  /** Multipart uploads under way whose key begins with `prefix`. */
  async *listUploads(prefix: string): AsyncGenerator<ListedUpload> {
    let marker: Record<string, string> | undefined = {};
    while (marker !== undefined) {
      const url = this.url("", { uploads: "", prefix, "encoding-type": "url", ...marker });
      const xml: string = await this.client.send({ method: "GET", url }, (answer) =>
        listing(answer, "ListMultipartUploadsResult"),
      );
      for (const entry of elementsOf(xml, "Upload")) {
        yield {
          key: this.decodeKey(textOf(entry, "Key") ?? ""),
          uploadId: textOf(entry, "UploadId") ?? "",
          initiatedMs: Date.parse(textOf(entry, "Initiated") ?? ""),
        };
      }
      const key = isTruncated(xml) ? textOf(xml, "NextKeyMarker") : undefined;
      const uploadId = textOf(xml, "NextUploadIdMarker") ?? "";
      const next =
        key === undefined
          ? undefined
          : { "key-marker": this.decodeKey(key), "upload-id-marker": uploadId };
      if (next !== undefined && Bun.deepEquals(next, marker)) throw this.endless();
      marker = next;
    }
  }

  private objectOf(entry: string): ListedObject {
    return {
      key: this.decodeKey(textOf(entry, "Key") ?? ""),
      sizeBytes: Number(textOf(entry, "Size")),
      modifiedMs: Date.parse(textOf(entry, "LastModified") ?? ""),
      etag: textOf(entry, "ETag") ?? "",
    };
  }

  private decodeKey(key: string): string {
    try {
      return decodeURIComponent(key.replaceAll("+", " "));
    } catch {
      throw this.malformed(`Expected an encoded key, got '${key}'`);
    }
  }

  /** A listing whose next page begins where this one did. */
  private endless(): RemoteError {
    return this.malformed("A listing has no end");
  }

  private malformed(message: string): RemoteError {
    return new RemoteError(message, { failure: "malformed", url: this.url("") });
  }

  /** Begins a multipart upload. Returns its id. */
  async createUpload(key: string, options?: SendOptions): Promise<string> {
    const headers = {
      "content-type": "application/octet-stream",
      "x-amz-checksum-algorithm": "CRC32",
    };
    const url = this.url(key, { uploads: "" });
    const consume = async (answer: Answer) => {
      const uploadId = textOf(await answer.text(), "UploadId");
      if (uploadId === undefined) throw answer.error("malformed", "Expected an upload id");
      return uploadId;
    };
    return this.client.send({ method: "POST", url, headers }, consume, options);
  }

  async uploadPart(
    upload: { readonly key: string; readonly uploadId: string },
    number: number,
    body: Uint8Array,
    options?: SendOptions,
  ): Promise<UploadedPart> {
    const crc = crcOf(body);
    const query = { partNumber: `${number}`, uploadId: upload.uploadId };
    const request = {
      method: "PUT",
      url: this.url(upload.key, query),
      headers: { "x-amz-checksum-crc32": crc },
      body,
    } as const;
    const consume = async (answer: Answer) => {
      await ended(answer);
      const etag = answer.headers.get("etag");
      if (etag === null) throw answer.error("malformed", "Expected the part's ETag");
      return etag;
    };
    const etag = await this.client.send(request, consume, options);
    this.client.counters[Counter.SentBytes]! += body.byteLength;
    return { number, etag, crc };
  }

  /**
   * Makes the object from its parts. A retry whose first attempt succeeded fails with "missing".
   */
  async completeUpload(
    upload: { readonly key: string; readonly uploadId: string },
    parts: readonly UploadedPart[],
    options?: SendOptions,
  ): Promise<void> {
    const listed = parts.map(
      ({ number, etag, crc }) =>
        `<Part><PartNumber>${number}</PartNumber><ETag>${encode(etag)}</ETag>` +
        `<ChecksumCRC32>${crc}</ChecksumCRC32></Part>`,
    );
    const request = {
      method: "POST",
      url: this.url(upload.key, { uploadId: upload.uploadId }),
      headers: { "content-type": "application/xml" },
      body: `<CompleteMultipartUpload>${listed.join("")}</CompleteMultipartUpload>`,
    } as const;
    // The status is sent before the work is done. An error may follow in the body.
    const consume = async (answer: Answer) => {
      const xml = await answer.text();
      const s3Code = xml.includes("<Error>") ? textOf(xml, "Code") : undefined;
      if (s3Code !== undefined)
        throw answer.error("busy", `The upload was not completed: ${s3Code}`, { s3Code });
      if (!xml.includes("CompleteMultipartUploadResult"))
        throw answer.error("malformed", "Expected the result of an upload");
    };
    await this.client.send(request, consume, options);
  }

  /** Aborts an upload. Succeeds also if there is none. */
  async abortUpload(key: string, uploadId: string): Promise<void> {
    try {
      const url = this.url(key, { uploadId });
      await this.client.send({ method: "DELETE", url }, ended);
    } catch (error) {
      if ((error as { failure?: string }).failure !== "missing") throw error;
    }
  }
}

const ENDED_BYTES_MAX = 2 ** 16;

/** Reads the answer to its end and ignores it. */
async function ended(answer: Answer): Promise<void> {
  await answer.bytes(ENDED_BYTES_MAX);
}

const LISTING_BYTES_MAX = 2 ** 24;

async function listing(answer: Answer, root: string): Promise<string> {
  const xml = await answer.text(LISTING_BYTES_MAX);
  if (!xml.includes(`</${root}>`)) throw answer.error("malformed", `Expected a ${root}`);
  return xml;
}

function isTruncated(xml: string): boolean {
  return textOf(xml, "IsTruncated") === "true";
}

function quote(value: string): string {
  return encodeURIComponent(value).replace(
    /[!'()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
