/**
 * The list between the first MemoryFile of a kernel's checkpoint and the others: their resource
 * ids, in order, in the object stream of gVisor's pkg/state.
 *
 *   header    varint: number of objects | 2^63
 *   types     0x11, name, fields: "pkg/sentry/kernel.privateMemoryFileMetadata" { owners }, and
 *             "pkg/sentry/checkpoint.ResourceID" { ContainerName, Path } if there is one
 *   objects   0x02, id, value:  1: struct of type 1 whose one field is a slice of object 2 (or nil)
 *                               2: array of structs of type 2 (length: the slice's capacity),
 *                               fields strings (or nil)
 *
 * Only this object is read, and only in the form that gVisor writes: any other stream is refused.
 * Source: savePrivateMFs in pkg/sentry/kernel/kernel.go; pkg/state/encode.go,
 * pkg/state/wire/wire.go.
 */
import { quote } from "../../ffi/index.ts";
import { CorruptCheckpointError } from "../errors/errors.ts";
import type { ByteSource } from "./stream.ts";
import { WireReader, WireWriter } from "./wire.ts";

/** Kinds of values in pkg/state/wire. */
const Kind = {
  uint: 2,
  nil: 5,
  ref: 6,
  string: 7,
  slice: 8,
  array: 9,
  struct: 11,
  multiple: 13,
  type: 17,
} as const;

const LIST_TYPE = "pkg/sentry/kernel.privateMemoryFileMetadata";
const ID_TYPE = "pkg/sentry/checkpoint.ResourceID";
const OBJECT_FLAG_HIGH = 0x8000_0000;
/** No sandbox has so many: a longer list is refused. */
const LIST_BYTES_MAX = 2 ** 24;
const FIRST_WINDOW_BYTES = 2 ** 16;

/** gVisor's ResourceID. `path` is never empty. */
export interface ResourceId {
  readonly containerName: string;
  readonly path: string;
}

/** "container:path" as gVisor prints it, or the path alone without a container. */
export function formatResourceId({ containerName, path }: ResourceId): string {
  return containerName === "" && !path.includes(":") ? path : `${containerName}:${path}`;
}

/** @throws {RangeError} unless `id` is what `formatResourceId` makes of an id with a path */
export function parseResourceId(id: string): ResourceId {
  const colon = id.indexOf(":");
  const parsed = { containerName: id.slice(0, Math.max(0, colon)), path: id.slice(colon + 1) };
  const isText = id.isWellFormed() && !id.includes("\0");
  if (isText && parsed.path !== "" && formatResourceId(parsed) === id) return parsed;
  throw new RangeError(
    `Expected an id like "path" or "container:path", well-formed and without NUL, got ${quote(id)}`,
  );
}

/** @throws {RangeError} if an import would refuse the list */
export function checkOwners(owners: readonly ResourceId[]): void {
  const bytes = encodeOwners(owners).length;
  if (bytes > LIST_BYTES_MAX)
    throw new RangeError(
      `Expected ids of at most ${LIST_BYTES_MAX} bytes together, got a list of ${bytes}`,
    );
}

export function encodeOwners(owners: readonly ResourceId[]): Uint8Array {
  const text = new TextEncoder();
  const parts: (number | string)[] = [];
  const type = (name: string, fields: string[]) =>
    parts.push(Kind.type, name, fields.length, ...fields);
  type(LIST_TYPE, ["owners"]);
  if (owners.length === 0) {
    parts.push(Kind.uint, 1, Kind.struct, 1, Kind.nil);
  } else {
    type(ID_TYPE, ["ContainerName", "Path"]);
    parts.push(Kind.uint, 1, Kind.struct, 1, Kind.slice, owners.length, owners.length, 2, 0);
    parts.push(Kind.uint, 2, Kind.array, owners.length);
    owners.forEach(({ containerName, path }, i) => {
      if (i === 0) parts.push(Kind.struct);
      parts.push(2, Kind.multiple, 2);
      for (const field of [containerName, path])
        parts.push(...(field === "" ? [Kind.nil] : [Kind.string, field]));
    });
  }
  const encoded = parts.map((part) => (typeof part === "string" ? text.encode(part) : part));
  const writer = new WireWriter(
    new Uint8Array(encoded.reduce<number>((sum, part) => sum + 10 + lengthOf(part), 10)),
  );
  writer.flaggedVarint(owners.length === 0 ? 1 : 2);
  for (const part of encoded) {
    writer.varint(lengthOf(part));
    if (typeof part !== "number") writer.raw(part);
  }
  return writer.bytes.slice(0, writer.position);
}

/** A number is written as itself, a string as its length and then its bytes. */
function lengthOf(part: number | Uint8Array): number {
  return typeof part === "number" ? part : part.byteLength;
}

export interface ReadOwners {
  readonly owners: readonly ResourceId[];
  /** Offset after the list. */
  readonly end: number;
}

/** Reads the list at `offset`. @throws {CorruptCheckpointError} for anything else */
export function readOwners(source: ByteSource, offset: number): ReadOwners {
  const leftBytes = Math.min(LIST_BYTES_MAX, source.sizeBytes - offset);
  const place = {
    ...(source.path === undefined ? {} : { path: source.path }),
    section: "owners",
    offset,
  };
  for (
    let windowBytes = Math.min(leftBytes, FIRST_WINDOW_BYTES);
    ;
    windowBytes = Math.min(leftBytes, 16 * windowBytes)
  ) {
    const reader = new WireReader(source.read(offset, windowBytes), place);
    try {
      const owners = new OwnersReader(reader).read();
      return { owners, end: offset + reader.position };
    } catch (error) {
      // The window may have cut it off.
      if (!(error instanceof CorruptCheckpointError) || windowBytes === leftBytes) throw error;
    }
  }
}

class OwnersReader {
  constructor(private readonly reader: WireReader) {}

  read(): ResourceId[] {
    const { reader } = this;
    const { low: objects, high } = reader.readHalves();
    if (high !== OBJECT_FLAG_HIGH || objects < 1 || objects > 2)
      throw reader.corrupt("Expected the list of MemoryFiles");
    this.expectType(LIST_TYPE, ["owners"]);
    if (objects === 2) this.expectType(ID_TYPE, ["ContainerName", "Path"]);
    this.expect(Kind.uint, 1, Kind.struct, 1);
    if (objects === 1) {
      this.expect(Kind.nil);
      return [];
    }
    this.expect(Kind.slice);
    const length = reader.readU64();
    const capacity = reader.readU64();
    if (length < 1 || length > capacity)
      throw reader.corrupt(`List of ${length} MemoryFiles has room for ${capacity}`);
    this.expect(2, 0, Kind.uint, 2, Kind.array, capacity, Kind.struct);
    const owners: ResourceId[] = [];
    for (let i = 0; i < capacity; i++) {
      this.expect(2, Kind.multiple, 2);
      const owner = { containerName: this.readString(), path: this.readString() };
      // The array has unused room after the length.
      if (i >= length) continue;
      if (owner.path === "") throw reader.corrupt("MemoryFile has no path");
      if (formatResourceId(owner).includes("\0"))
        throw reader.corrupt("The id of a MemoryFile has a NUL character");
      owners.push(owner);
    }
    return owners;
  }

  private expectType(name: string, fields: readonly string[]): void {
    this.expect(Kind.type);
    const got = this.reader.readText();
    if (got !== name)
      throw this.reader.corrupt(`Expected type ${name}, got ${JSON.stringify(got)}`);
    this.expect(fields.length);
    for (const field of fields) {
      const gotField = this.reader.readText();
      if (gotField !== field)
        throw this.reader.corrupt(`Expected field ${field}, got ${JSON.stringify(gotField)}`);
    }
  }

  private expect(...values: number[]): void {
    for (const value of values) {
      const got = this.reader.readU64();
      if (got !== value)
        throw this.reader.corrupt(`Expected ${value} in the list of MemoryFiles, got ${got}`);
    }
  }

  private readString(): string {
    const kind = this.reader.readU64();
    if (kind === Kind.nil) return "";
    if (kind !== Kind.string)
      throw this.reader.corrupt(`Expected a string, got a value of kind ${kind}`);
    return this.reader.readText();
  }
}
