/** Makes, checks and drops tables. */
import { WrongTypeError } from "../errors/store.ts";
import type { ColumnCodec, Schema } from "./column-types.ts";
import { Columns, codecsOf } from "./columns.ts";
import { type HeaderPlace, StructureKind } from "./header.ts";
import type { StoreParts } from "./parts.ts";
import { Table } from "./table.ts";

/**
 * The table of that name; makes it if it does not exist. Without a schema it must exist. @throws as
 * Store.table
 */
export function openTable(
  parts: StoreParts,
  name: string,
  schema: Schema | undefined,
): HeaderPlace {
  const place = parts.names.find(name, StructureKind.Table);
  const codecs = schema === undefined ? undefined : codecsOf(schema);
  if (place === undefined) {
    if (codecs === undefined)
      throw new RangeError(`The store has no table ${JSON.stringify(name)}: pass its columns`);
    return parts.arena.write(`table() to make ${JSON.stringify(name)}`, () => {
      // Another thread may have made it meanwhile.
      const found = parts.names.find(name, StructureKind.Table);
      if (found !== undefined) return found;
      const made = parts.names.create(name, StructureKind.Table);
      new Columns(parts, made).create(codecs);
      return made;
    });
  }
  if (codecs !== undefined) requireColumns(parts, place, codecs);
  return place;
}

function requireColumns(
  parts: StoreParts,
  place: HeaderPlace,
  codecs: ReadonlyMap<string, ColumnCodec>,
): void {
  const stored = new Map(
    new Columns(parts, place).all().map(({ name, codec }) => [name, codec.toString()]),
  );
  for (const [name, codec] of codecs) {
    const type = stored.get(name) ?? "no column: see addColumn()";
    if (type !== codec.toString())
      throw new WrongTypeError(`${place.name}.${name}`, codec.toString(), type);
  }
}

/** Removes a table and all its rows, by operations of its own. None allocates. */
export function dropTable(parts: StoreParts, place: HeaderPlace): void {
  new Table(parts, place).drop();
  parts.tidy();
}
