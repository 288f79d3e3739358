/** The file `origin` of a cache: the place and version of the checkpoint in its directory. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { hex } from "../checkpoint/page-file.ts";

export const ORIGIN = "origin";

export interface Origin {
  /** The place's URL, without a query. */
  readonly url: string;
  /** Distinguishes the checkpoints of the place without reading them. */
  readonly version: string;
  readonly id: bigint;
}

export function encodeOrigin({ url, version, id }: Origin): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify({ url, version, id: hex(id) })}\n`);
}

/** Undefined if there is none, or it cannot be read. */
export function readOrigin(directory: string): Origin | undefined {
  let text: string;
  try {
    text = readFileSync(join(directory, ORIGIN), "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  return parseOrigin(text);
}

function parseOrigin(text: string): Origin | undefined {
  let value: { url?: unknown; version?: unknown; id?: unknown } | null;
  try {
    value = JSON.parse(text) as typeof value;
  } catch {
    // Damaged: the cache is filled again.
    return undefined;
  }
  const { url, version, id } = value ?? {};
  const isOrigin = typeof url === "string" && typeof version === "string" && typeof id === "string";
  if (!isOrigin || !/^[0-9a-f]{16}$/.test(id)) return undefined;
  return { url, version, id: BigInt(`0x${id}`) };
}
