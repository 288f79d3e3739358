/** The command line's arguments: node's parseArgs, with all its errors turned into UsageError. */
import { type ParseArgsConfig, parseArgs } from "node:util";

/** The command line is wrong: the tool prints the reason and its usage, and exits with 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

type Options = NonNullable<ParseArgsConfig["options"]>;

/**
 * Parses flags, and exactly the arguments named in `positionals`.
 * @throws {UsageError} for unknown, missing or surplus arguments
 */
export function parseArguments<T extends Options>(
  args: string[],
  options: T,
  positionals: readonly string[],
) {
  const parsed = parseStrictly(args, options);
  const surplus = parsed.positionals[positionals.length];
  if (surplus !== undefined) throw new UsageError(`Unexpected argument ${JSON.stringify(surplus)}`);
  const missing = positionals[parsed.positionals.length];
  if (missing !== undefined) throw new UsageError(`Expected ${missing}`);
  return parsed;
}

function parseStrictly<T extends Options>(args: string[], options: T) {
  try {
    return parseArgs({ args, options, strict: true, allowPositionals: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code?.startsWith("ERR_PARSE_ARGS") !== true) throw error;
    throw new UsageError((error as Error).message);
  }
}

/** An integer flag. @throws {UsageError} */
export function parseInteger(flag: string, text: string, min: number, max: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= min && value <= max))
    throw new UsageError(`Expected ${flag} to be ${min} to ${max}, got ${JSON.stringify(text)}`);
  return value;
}
