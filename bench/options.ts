/** The bench's command line. */
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

export const USAGE = `Usage: bun run bench [options]

  --only NAME    only these subjects (comma-separated, or given again)
  --rounds N     rounds of every case (default 5)
  --bytes N      bytes of the whole-job images (default 2147483648; a multiple of 4194304)
  --no-peers     without gVisor and fio
  --smoke        the least that runs every line: one round, tiny sizes, no peers
  --dir DIR      where images go: twice --bytes of free disk (default: the temporary folder)
  --write        write results.json, results.md and results.svg also after a partial run
  --out DIR      where to (default: bench/)
`;

export interface Options {
  readonly only: readonly string[];
  readonly rounds: number;
  readonly bytes: number;
  readonly withPeers: boolean;
  readonly isSmoke: boolean;
  readonly directory: string;
  /** The path of the results; null for none. */
  readonly out: string | null;
}

const FULL_ROUNDS = 5;
const FULL_BYTES = 2 ** 31;
const SMOKE_BYTES = 2 ** 23;
/** Images are also made at an eighth of the size, of whole pieces of four pages. */
const BYTES_UNIT = 2 ** 22;

/** @throws {TypeError} {RangeError} for a bad command line */
export function parseOptions(argv: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      only: { type: "string", multiple: true, default: [] },
      rounds: { type: "string" },
      bytes: { type: "string" },
      "no-peers": { type: "boolean", default: false },
      smoke: { type: "boolean", default: false },
      dir: { type: "string", default: tmpdir() },
      write: { type: "boolean", default: false },
      out: { type: "string" },
    },
  });
  const isSmoke = values.smoke;
  const rounds = count("--rounds", values.rounds ?? String(isSmoke ? 1 : FULL_ROUNDS), 1);
  const bytes = count(
    "--bytes",
    values.bytes ?? String(isSmoke ? SMOKE_BYTES : FULL_BYTES),
    BYTES_UNIT,
  );
  const only = values.only.flatMap((names) => names.split(","));
  const withPeers = !values["no-peers"] && !isSmoke;
  const isFull = only.length === 0 && rounds >= FULL_ROUNDS && bytes === FULL_BYTES && withPeers;
  // An installed package's folder is no place for results: they are written there only on request.
  const isInstalled = import.meta.dir.includes(`${join("node_modules", "pgalloc")}`);
  const writes = values.write || values.out !== undefined || (isFull && !isInstalled);
  return {
    only,
    rounds,
    bytes,
    withPeers,
    isSmoke,
    directory: values.dir,
    out: writes ? (values.out ?? import.meta.dir) : null,
  };
}

function count(flag: string, text: string, unit: number): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1 || value % unit !== 0) {
    throw new RangeError(
      `Expected ${flag} to be a positive multiple of ${unit}, got ${JSON.stringify(text)}`,
    );
  }
  return value;
}
