/** The page map: its models, its server, and its pages in a headless Chromium. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Browser } from "playwright-core";
import { MemoryFile, PAGE_SIZE, serveMap } from "../../src/index.ts";
import { KIND_NAMES, type MapModel, RUN_STATES } from "../../src/map/model.ts";
import { renderPage } from "../../src/map/page.ts";
import { hasBrowser, hover, openBrowser, openPage, waitUntil } from "./support.ts";

const directory = mkdtempSync(join(tmpdir(), "pgalloc-map-"));
afterAll(() => rmSync(directory, { recursive: true }));
const main = join(import.meta.dir, "../../src/cli/main.ts");
const UNIT_PAGES = 512;

/** Saves: a unit of one kind and group, a shared unit, a unit of zeros, a unit with a hole. */
async function saveSample(): Promise<string> {
  const path = join(directory, "checkpoint");
  using file = MemoryFile.create({ name: "sample" });
  const range = file.allocate(4 * UNIT_PAGES * PAGE_SIZE, { kind: 1, group: 9 });
  const unit = (index: number) => ({
    start: range.start + index * UNIT_PAGES * PAGE_SIZE,
    end: range.start + (index + 1) * UNIT_PAGES * PAGE_SIZE,
  });
  for (const index of [0, 1, 3]) file.view(unit(index)).fill(index + 1);
  file.incRef(unit(1));
  const { start } = unit(3);
  file.decRef({ start: start + 128 * PAGE_SIZE, end: start + 256 * PAGE_SIZE });
  await file.saveTo(path);
  return path;
}

function runMap(...args: string[]): { exitCode: number; output: string } {
  const { exitCode, stdout, stderr } = Bun.spawnSync([process.execPath, main, "map", ...args]);
  return { exitCode, output: `${stdout}${stderr}` };
}

/** The model that a page contains. */
function modelIn(html: string): MapModel {
  return JSON.parse(/<script id="model"[^>]*>([^<]*)<\/script>/.exec(html)![1]!) as MapModel;
}

describe("pgalloc map", () => {
  test("writes one file that makes no request", async () => {
    const out = join(directory, "map.html");
    const path = await saveSample();
    expect(runMap(path, "--out", out)).toEqual({ exitCode: 0, output: `wrote ${out}\n` });
    const html = await Bun.file(out).text();
    expect(html.match(/(?:src|href)="(?!data:)[^"]*"|url\(|@import/g)).toBeNull();
    const { files, kinds, isLive } = modelIn(html);
    expect(isLive).toBe(false);
    const [file] = files;
    expect(file!.runs.group).toContain(9);
    expect(file!.runs.refs).toContain(2);
    expect(kinds[file!.runs.kind[0]!]).toBe("Anonymous");
    const stored = file!.extents!.length.reduce((sum, pages) => sum + pages, 0);
    expect(stored).toBe(2 * UNIT_PAGES + UNIT_PAGES - 128);
  });

  test("exits with 2 without --out, and with 1 for a missing checkpoint", () => {
    expect(runMap(directory).exitCode).toBe(2);
    expect(runMap(join(directory, "absent"), "--out", join(directory, "no.html")).exitCode).toBe(1);
  });
});

test("renderPage embeds text of any kind as data", () => {
  const name = "</script><script>alert(1)</script><!--";
  const html = renderPage({ ...emptyModel(1), title: name });
  expect(modelIn(html).title).toBe(name);
  expect(html).not.toContain("<script>alert");
});

/** A model of `chunks` free chunks. */
function emptyModel(chunks: number): MapModel {
  const runs = { start: [], length: [], state: [], kind: [], group: [], refs: [] };
  const chunkHuge = new Array<number>(chunks).fill(0);
  const file = { name: "empty", sizePages: chunks * 262_144, chunkHuge, runs, extents: null };
  return {
    title: "empty",
    isLive: false,
    pageBytes: PAGE_SIZE,
    unitPages: UNIT_PAGES,
    chunkPages: 262_144,
    states: RUN_STATES,
    kinds: KIND_NAMES,
    contents: [],
    codecs: [],
    files: [file],
  };
}

describe("serveMap()", () => {
  test("answers on the loopback interface, to requests that name it", async () => {
    using file = MemoryFile.create({ name: "served" });
    file.allocate(PAGE_SIZE);
    await using server = await serveMap(file);
    expect(server.url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/$/);
    expect((await fetch(server.url)).headers.get("content-type")).toContain("text/html");
    expect(((await (await fetch(`${server.url}model`)).json()) as MapModel).title).toBe("served");
    expect((await fetch(`${server.url}absent`)).status).toBe(404);
    const foreign = await fetch(server.url, { headers: { host: "attacker.example" } });
    expect(foreign.status).toBe(403);
  });

  test("answers 503 once the file is destroyed", async () => {
    const file = MemoryFile.create();
    await using server = await serveMap([file]);
    file.destroy();
    expect((await fetch(server.url)).status).toBe(503);
    expect(serveMap(file)).rejects.toThrow("destroy");
    expect(serveMap({} as MemoryFile)).rejects.toThrow(TypeError);
  });
});

describe.skipIf(!hasBrowser)("in Chromium", () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await openBrowser();
  });
  afterAll(async () => await browser.close());

  test("a checkpoint's map shows on hover what the model has", async () => {
    const out = join(directory, "hover.html");
    expect(runMap(await saveSample(), "--out", out).exitCode).toBe(0);
    const { files } = modelIn(await Bun.file(out).text());
    const first = files[0]!.runs.start[0]! / UNIT_PAGES;
    const { page, errors } = await openPage(browser, pathToFileURL(out).href);
    const bytes = (unit: number) => unit * UNIT_PAGES * PAGE_SIZE;
    const range = (unit: number) => `[${bytes(unit)}, ${bytes(unit + 1)})`;
    expect(await hover(page, first)).toBe(`unit ${first} ${range(first)}: 2 MiB used`);
    expect(await hover(page, first + 2)).toBe(`unit ${first + 2} ${range(first + 2)}: 2 MiB zero`);
    const holed = first + 3;
    expect(await hover(page, holed)).toBe(
      `unit ${holed} ${range(holed)}: 1.5 MiB used, 512 KiB free`,
    );
    // Zoom in to the pages of the shared unit.
    await page.evaluate(`zoomIn(${first + 1})`);
    await page.evaluate(`zoomIn(${first + 1})`);
    expect(await hover(page, 0)).toMatch(
      /^page \d+ \[\d+, \d+\): used, kind Anonymous, group 9, 2 references, raw frame in pages-\S+ at \d+$/,
    );
    expect(errors).toEqual([]);
    await page.close();
  }, 60_000);

  test("is usable by keyboard, in dark and in light", async () => {
    const out = join(directory, "keyboard.html");
    writeFileSync(out, renderPage(emptyModel(3)));
    for (const scheme of ["dark", "light"] as const) {
      const { page, errors } = await openPage(browser, pathToFileURL(out).href, scheme);
      const background = () => page.evaluate("getComputedStyle(document.body).backgroundColor");
      const before = await background();
      await page.focus("#map");
      await page.keyboard.press("ArrowRight");
      await page.keyboard.press("ArrowDown");
      expect(await page.textContent("#status")).toStartWith("unit 33 ");
      await page.keyboard.press("Enter");
      expect(await page.textContent("#path")).toContain("chunk 0");
      await page.keyboard.press("Enter");
      await page.keyboard.press("End");
      expect(await page.textContent("#status")).toStartWith(`page ${33 * 512 + 511} `);
      await page.keyboard.press("Escape");
      await page.keyboard.press("Escape");
      expect(await page.textContent("#path")).not.toContain("chunk");
      await page.click("#theme");
      expect(await background()).not.toBe(before);
      expect(errors).toEqual([]);
      await page.close();
    }
  }, 60_000);

  test("shows 100 GiB on a screen or two", async () => {
    const out = join(directory, "large.html");
    writeFileSync(out, renderPage(emptyModel(100)));
    const { page, errors } = await openPage(browser, pathToFileURL(out).href);
    const height = await page.evaluate("document.body.scrollHeight");
    expect(height as number).toBeLessThan(3000);
    expect(await hover(page, 100)).toStartWith("unit 100 ");
    expect(errors).toEqual([]);
    await page.close();
  }, 60_000);

  test("a live map follows a load to its end", async () => {
    const path = join(directory, "live");
    {
      using first = MemoryFile.create();
      first.view(first.allocate(256 * 2 ** 20)).fill(1);
      await first.saveTo(path);
    }
    using file = await MemoryFile.loadFrom(path, { background: true, name: "live" });
    await using server = await serveMap(file);
    const { page, errors } = await openPage(browser, server.url);
    await file.awaitLoad({ start: 255 * 2 ** 20, end: 256 * 2 ** 20 });
    await file.awaitLoad();
    await waitUntil(page, "data.update !== null && data.update.files[0].units === ''");
    expect(await page.textContent("#progress")).toBe("256 MiB of 256 MiB loaded");
    expect(await hover(page, 0)).toBe("unit 0 [0, 2097152): 2 MiB used");
    const waits = file.metrics().awaits;
    const rows = await page.locator("#waits tr").count();
    expect(rows).toBe(Math.min(20, waits.range.count + waits.all.count));
    // Each has a bar, with its text, and the colours of its causes have names.
    expect(await page.locator("#chart .wait").count()).toBe(rows);
    expect(await page.locator("#chart .wait.all title").first().textContent()).toMatch(
      /^waits for all: \S+ m?s for \[0, \d+\)$/,
    );
    expect(await page.textContent("#causes")).toContain("waits for all");
    // Pages that the program frees are free on the map, too.
    file.decRef({ start: 0, end: 2 ** 20 });
    await file.released();
    await waitUntil(page, "describe(0).includes('1 MiB free')");
    await page.evaluate("zoomIn(0)");
    await page.evaluate("zoomIn(0)");
    expect(await hover(page, 511)).toMatch(/: used, kind Anonymous, group 0, 1 reference$/);
    expect(errors).toEqual([]);
    await page.close();
  }, 60_000);
});

test("pgalloc demo --web serves the page map until it is interrupted, and cleans up", async () => {
  const temporary = join(directory, "demo");
  mkdirSync(temporary);
  const demo = Bun.spawn([process.execPath, main, "demo", "--size", "8", "--web"], {
    stdout: "pipe",
    stderr: "inherit",
    detached: true,
    env: { ...process.env, TMPDIR: temporary },
  });
  let output = "";
  for await (const chunk of demo.stdout) {
    output += new TextDecoder().decode(chunk);
    if (!output.includes("Ctrl-C")) continue;
    const url = /The page map stays at (\S+)/.exec(output)![1]!;
    expect(await (await fetch(url)).text()).toContain("pgalloc demo");
    // As a terminal does: to the whole process group, that is to both processes of the demo.
    process.kill(-demo.pid, "SIGINT");
    break;
  }
  await demo.exited;
  expect(output).toContain("so is every page");
  expect(readdirSync(temporary).filter((name) => name.startsWith("pgalloc-"))).toEqual([]);
}, 60_000);
