/**
 * The cost of a live page map to a load: loads of an image, cold, in turns without a map and with
 * one that headless Chromium shows. `bun bench/map-load.ts [--gib 8] [--pairs 5] [--dir DIR]`. With
 * `--reader` a process reads the updates instead, as if the browser were on another machine.
 *
 * The seconds are those of the whole load; Chromium takes a part of the machine for itself. The
 * processor time is that of the loading process alone, which also serves the map. Where both differ
 * more from load to load than the map can cost, the last line counts: the time of making an update,
 * as the server does four times a second, measured in the loads without a map.
 */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { coreOf } from "../src/file/memory-file.ts";
import { MemoryFile, serveMap } from "../src/index.ts";
import { updateOf } from "../src/map/from-file.ts";
import { fillImage } from "./support/image.ts";
import { prepareCache } from "./support/page-cache.ts";
import { median } from "./support/statistics.ts";

const { values } = parseArgs({
  options: {
    gib: { type: "string", default: "8" },
    pairs: { type: "string", default: "5" },
    dir: { type: "string", default: tmpdir() },
    reader: { type: "boolean", default: false },
  },
});
const UPDATE_MS = 250;
const updatesMs: number[] = [];
const directory = mkdtempSync(join(values.dir, "pgalloc-map-load-"));
const executablePath = Bun.which("chromium") ?? Bun.which("google-chrome") ?? "chromium";
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });

async function load(hasMap: boolean) {
  for (const name of readdirSync(directory)) prepareCache(join(directory, name), "cold");
  const cpu = process.cpuUsage();
  const beganMs = performance.now();
  using file = await MemoryFile.loadFrom(directory, { background: true, workingSet: false });
  const server = hasMap ? await serveMap(file) : undefined;
  const shown = server && (values.reader ? readUpdates(server.url) : await showPage(server.url));
  const timer = hasMap ? undefined : setInterval(() => makeUpdate(file), UPDATE_MS);
  await file.awaitLoad();
  clearInterval(timer);
  const seconds = (performance.now() - beganMs) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const updates = (await shown?.()) ?? 0;
  await server?.stop();
  return { seconds, cpuSeconds: (user + system) / 1e6, updates };
}

/** Shows a map in the browser. The result ends that, and tells the number of updates. */
async function showPage(url: string): Promise<() => Promise<number>> {
  const page = await browser.newPage();
  await page.goto(url);
  return async () => {
    const updates = await page.evaluate("document.documentElement.dataset.updates");
    await page.close();
    return Number(updates);
  };
}

/** Reads a map's updates in another process; the same result. */
function readUpdates(url: string): () => Promise<number> {
  const reader = Bun.spawn(["curl", "-sN", new URL("live", url).href], { stdout: "pipe" });
  const text = new Response(reader.stdout).text();
  return async () => {
    reader.kill();
    return (await text).split("\n\n").length - 1;
  };
}

/** What the server of a map does for each update. */
function makeUpdate(file: MemoryFile): void {
  const beganMs = performance.now();
  const { nowMs, ...rest } = updateOf([coreOf(file)], () => []);
  // The first one is compared with the last update.
  const [, sent] = [rest, { nowMs, ...rest }].map((message) => JSON.stringify(message));
  new TextEncoder().encode(`data: ${sent}\n\n`);
  updatesMs.push(performance.now() - beganMs);
}

type Loads = readonly Awaited<ReturnType<typeof load>>[];

function show(name: string, loads: Loads): void {
  const of = (key: "seconds" | "cpuSeconds" | "updates") => median(loads.map((one) => one[key]));
  const all = loads.map(({ seconds }) => seconds.toFixed(2)).join(" ");
  const cpu = loads.map(({ cpuSeconds }) => cpuSeconds.toFixed(2)).join(" ");
  console.log(
    `${name}: ${of("seconds").toFixed(2)} s (${all}), ${of("cpuSeconds").toFixed(2)} s of ` +
      `processors (${cpu}), ${of("updates")} updates`,
  );
}

try {
  {
    using file = MemoryFile.create();
    fillImage(file, "dense", Number(values.gib) * 2 ** 30);
    await file.saveTo(directory);
  }
  await load(false); // The first one finds fresh memory.
  const without: Awaited<ReturnType<typeof load>>[] = [];
  const withMap: Awaited<ReturnType<typeof load>>[] = [];
  for (let pair = 0; pair < Number(values.pairs); pair++) {
    without.push(await load(false));
    withMap.push(await load(true));
  }
  show("without a map", without);
  show("with a live map", withMap);
  const updateMs = median(updatesMs);
  console.log(
    `an update: ${updateMs.toFixed(2)} ms (median of ${updatesMs.length}), ` +
      `${((100 * updateMs) / UPDATE_MS).toFixed(2)} % of a processor`,
  );
} finally {
  await browser.close();
  rmSync(directory, { recursive: true });
}
process.exit(0);
