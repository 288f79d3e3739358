/** The part of S3's protocol that checkpoints use, over a map of objects. */
import type { IncomingHttpHeaders } from "node:http";

export interface StoredObject {
  readonly bytes: Uint8Array;
  readonly etag: string;
  readonly modifiedMs: number;
}

export interface Upload {
  readonly key: string;
  readonly initiatedMs: number;
  readonly parts: Map<number, StoredObject>;
}

export interface Store {
  readonly objects: Map<string, StoredObject>;
  readonly uploads: Map<string, Upload>;
  readonly ignoresConditions: boolean;
  readonly clockMs: number;
  readonly listMax: number;
  put(key: string, bytes: Uint8Array): StoredObject;
}

export interface Received {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Uint8Array;
}

export interface Reply {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: Uint8Array;
  /** For a range: the object, and the start of the range. */
  readonly whole?: Uint8Array;
  readonly start?: number;
}

const PART_BYTES_MIN = 5 * 2 ** 20;

export function answerS3(store: Store, request: Received): Reply {
  const url = new URL(request.url, "http://server");
  const [, , ...rest] = url.pathname.split("/");
  const key = rest.map(decodeURIComponent).join("/");
  const query = url.searchParams;
  if (!isWellSummed(request)) return error(400, "BadDigest");
  switch (request.method) {
    case "HEAD":
    case "GET":
      if (query.has("list-type")) return list(store, query);
      if (query.has("uploads")) return listUploads(store, query);
      return get(store, key, request);
    case "PUT":
      return query.has("uploadId") ? putPart(store, query, request.body) : put(store, key, request);
    case "POST":
      return query.has("uploads") ? create(store, key) : complete(store, key, query, request.body);
    case "DELETE":
      if (query.has("uploadId")) {
        if (!store.uploads.delete(query.get("uploadId")!)) return error(404, "NoSuchUpload");
      } else store.objects.delete(key);
      return { status: 204, headers: {}, body: Buffer.alloc(0) };
    default:
      return error(405, "MethodNotAllowed");
  }
}

function isWellSummed({ headers, body }: Received): boolean {
  const told = headers["x-amz-checksum-crc32"];
  if (told === undefined) return true;
  const crc = Buffer.alloc(4);
  crc.writeUInt32BE(Bun.hash.crc32(body));
  return crc.toString("base64") === told;
}

function error(status: number, code: string): Reply {
  return { status, headers: {}, body: Buffer.from(`<Error><Code>${code}</Code></Error>`) };
}

function xml(body: string, headers: Record<string, string> = {}): Reply {
  const type = { "content-type": "application/xml" };
  return { status: 200, headers: { ...type, ...headers }, body: Buffer.from(body) };
}

function get(store: Store, key: string, { headers }: Received): Reply {
  const object = store.objects.get(key);
  if (object === undefined) return error(404, "NoSuchKey");
  const { bytes, etag } = object;
  const ifMatch = headers["if-match"];
  if (ifMatch !== undefined && ifMatch !== etag) return error(412, "PreconditionFailed");
  const about = { etag, "last-modified": new Date(object.modifiedMs).toUTCString() };
  const range = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? "");
  if (range === null) return { status: 200, headers: about, body: bytes };
  const start = Number(range[1]);
  const end = Math.min(Number(range[2]) + 1, bytes.length);
  if (start >= bytes.length) return error(416, "InvalidRange");
  const contentRange = `bytes ${start}-${end - 1}/${bytes.length}`;
  return {
    status: 206,
    headers: { ...about, "content-range": contentRange },
    body: bytes.subarray(start, end),
    whole: bytes,
    start,
  };
}

function put(store: Store, key: string, { headers, body }: Received): Reply {
  const isTaken = headers["if-none-match"] === "*" && store.objects.has(key);
  if (isTaken && !store.ignoresConditions) return error(412, "PreconditionFailed");
  return xml("", { etag: store.put(key, body).etag });
}

function create(store: Store, key: string): Reply {
  const uploadId = `upload/${crypto.randomUUID()}+&`;
  const initiatedMs = Date.now() + store.clockMs;
  store.uploads.set(uploadId, { key, initiatedMs, parts: new Map() });
  const inside = `<UploadId>${uploadId.replace("&", "&amp;")}</UploadId>`;
  return xml(`<InitiateMultipartUploadResult>${inside}</InitiateMultipartUploadResult>`);
}

function putPart(store: Store, query: URLSearchParams, bytes: Uint8Array): Reply {
  const upload = store.uploads.get(query.get("uploadId")!);
  if (upload === undefined) return error(404, "NoSuchUpload");
  const etag = `"part-${Bun.hash.crc32(bytes).toString(16)}"`;
  upload.parts.set(Number(query.get("partNumber")), { bytes, etag, modifiedMs: 0 });
  return xml("", { etag });
}

function complete(store: Store, key: string, query: URLSearchParams, body: Uint8Array): Reply {
  const upload = store.uploads.get(query.get("uploadId")!);
  if (upload?.key !== key) return error(404, "NoSuchUpload");
  const parts: Uint8Array[] = [];
  for (const [, part] of body.toString().matchAll(/<Part>(.*?)<\/Part>/g)) {
    const number = Number(/<PartNumber>(\d+)</.exec(part!)?.[1]);
    const etag = /<ETag>(.*?)<\/ETag>/.exec(part!)?.[1]?.replaceAll("&#34;", '"');
    const stored = upload.parts.get(number);
    if (stored === undefined || stored.etag !== etag) return error(400, "InvalidPart");
    parts.push(stored.bytes);
  }
  if (parts.slice(0, -1).some(({ length }) => length < PART_BYTES_MIN))
    return error(400, "EntityTooSmall");
  store.uploads.delete(query.get("uploadId")!);
  const { etag } = store.put(key, Buffer.concat(parts));
  const inside = `<ETag>${etag.replaceAll('"', "&quot;")}</ETag>`;
  return xml(`<CompleteMultipartUploadResult>${inside}</CompleteMultipartUploadResult>`);
}

function list(store: Store, query: URLSearchParams): Reply {
  const prefix = query.get("prefix") ?? "";
  const after = query.get("continuation-token") ?? "";
  const limit = Math.min(Number(query.get("max-keys") ?? store.listMax), store.listMax);
  const keys = [...store.objects.keys()]
    .filter((key) => key.startsWith(prefix) && key > after)
    .sort();
  const page = keys.slice(0, limit);
  const entries = page.map((key) => {
    const { bytes, modifiedMs, etag } = store.objects.get(key)!;
    const modified = new Date(modifiedMs).toISOString();
    return (
      `<Contents><Key>${encodeURIComponent(key)}</Key><Size>${bytes.length}</Size>` +
      `<LastModified>${modified}</LastModified><ETag>${etag.replaceAll('"', "&quot;")}</ETag>` +
      "</Contents>"
    );
  });
  const isTruncated = keys.length > page.length;
  const next = isTruncated ? `<NextContinuationToken>${page.at(-1)}</NextContinuationToken>` : "";
  return xml(
    `<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">` +
      `<IsTruncated>${isTruncated}</IsTruncated>${next}${entries.join("")}</ListBucketResult>`,
  );
}

function listUploads(store: Store, query: URLSearchParams): Reply {
  const prefix = query.get("prefix") ?? "";
  const entries = [...store.uploads]
    .filter(([, { key }]) => key.startsWith(prefix))
    .map(
      ([id, { key, initiatedMs }]) =>
        `<Upload><Key>${encodeURIComponent(key)}</Key>` +
        `<UploadId>${id.replace("&", "&amp;")}</UploadId>` +
        `<Initiated>${new Date(initiatedMs).toISOString()}</Initiated></Upload>`,
    );
  return xml(
    `<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>${entries.join("")}` +
      "</ListMultipartUploadsResult>",
  );
}
