/**
 * Saves an image: all pages stamped, or every fourth never touched. The clock covers `saveTo`,
 * which returns when the checkpoint is complete, synced and in place. The peer has figures with and
 * without the sync, so pgalloc's appears under both names. The hash covers the contents of a
 * restore.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { MemoryFile } from "../src/index.ts";
import {
  type Bench,
  main,
  number,
  type Params,
  type Run,
  type Sample,
  text,
} from "./support/bench.ts";
import { EventLoopMeter } from "./support/event-loop.ts";
import { fillImage, hashFile, hashImage } from "./support/image.ts";
import type { Pattern } from "./support/trace.ts";

export const bench: Bench = {
  subject: "save",
  title: "saveTo, synced",
  cases: ({ bytes }) =>
    [bytes / 8, bytes].flatMap((size) =>
      ["dense", "fragmented"].map((pattern) => ({ pattern, bytes: size })),
    ),
  measure: sample,
  gvisor: {
    arguments: (params, run) => [
      ...["mkimage", "-dir", peerImage(run.directory, params)],
      ...["-bytes", `${params["bytes"]}`, "-pattern", `${params["pattern"]}`],
    ],
    hash: (params, run) => hashFile(join(peerImage(run.directory, params), "pages.img")),
  },
};

/** The images of a case: pgalloc's, and the peer's in its own format. */
export function ourImage(directory: string, { pattern, bytes }: Params): string {
  return join(directory, `pgalloc-${pattern}-${bytes}`);
}

export function peerImage(directory: string, { pattern, bytes }: Params): string {
  return join(directory, `gvisor-${pattern}-${bytes}`);
}

async function sample(params: Params, run: Run): Promise<Sample> {
  const bytes = number(params, "bytes");
  const pattern = text(params, "pattern") as Pattern;
  const directory = ourImage(run.directory, params);
  // Freeing an old image's blocks is not part of a save.
  rmSync(directory, { recursive: true, force: true });
  const file = MemoryFile.create({ name: "bench" });
  fillImage(file, pattern, bytes);
  Bun.gc(true);

  const cpu = process.cpuUsage();
  const loop = new EventLoopMeter();
  const startedAt = performance.now();
  const report = await file.saveTo(directory);
  const seconds = (performance.now() - startedAt) / 1000;
  const gaps = loop.stop();
  const { user, system } = process.cpuUsage(cpu);
  file.destroy();

  // Every load of an image hashes it. Here only the first round does.
  const hash = run.seed === 1 ? await hashSaved(directory, pattern, bytes) : null;
  return {
    figures: {
      saveSeconds: seconds,
      saveAndSyncSeconds: seconds,
      saveCPUSeconds: (user + system) / 1e6,
      ...gaps,
      metaBytes: report.metaBytes,
      pagesBytes: report.pagesBytes,
      extents: report.extents,
    },
    hash,
  };
}

async function hashSaved(directory: string, pattern: Pattern, bytes: number): Promise<string> {
  using back = await MemoryFile.loadFrom(directory);
  return hashImage(back, pattern, bytes);
}

if (import.meta.main) await main(bench);
