/**
 * Saving: takes an instant (instant.ts), writes contents to a page file of the sink, and commits
 * the manifest. A save builds on the checkpoint at the destination, its base, and writes only
 * contents that the base lacks.
 */
import { decodeManifest } from "../checkpoint/decode.ts";
import { type EncodedManifest, encodeManifest } from "../checkpoint/encode.ts";
import type { KeptLock } from "../checkpoint/directory-lock.ts";
import type { Manifest, PageFile, SavedFile } from "../checkpoint/format.ts";
import { hex } from "../checkpoint/page-file.ts";
import { closing } from "../checkpoint/staging.ts";
import { wasteTouchedFree } from "../allocator/touched-free.ts";
import { type PageRuns, subtractRuns } from "../changes/page-runs.ts";
import { Word } from "../control/control.ts";
import type { FileCore } from "../core/core.ts";
import type { UserData } from "../core/options.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { inSlices, nextTurn } from "../threads/slices.ts";
import { whenAdmitted } from "./admission.ts";
import { noteBase } from "./base.ts";
import { buildMap, type StoredExtents, storedExtents } from "./build-map.ts";
import { LEAST_MOVED_BYTES, measureUse, pagesToMove, planMoves } from "./compaction.ts";
import { countPages } from "./data-finder.ts";
import { Detectors } from "./detectors.ts";
import { usedRuns } from "./collect.ts";
import { findFreed, withoutFreed } from "./freed-pages.ts";
import { FrameList } from "./frame-list.ts";
import {
  bytesAtOnce,
  collectState,
  type FileState,
  type Instant,
  InstantTaker,
  pagesToCover,
  type PassRuns,
  type SavedCore,
} from "./instant.ts";
import {
  checkUserDataBytes,
  planSave,
  type SaveFile,
  type SaveOptions,
  type SavePlan,
  type SaveReport,
} from "./options.ts";
import { openSink } from "./open-sink.ts";
import { makeReport, type SavedCheckpoint, type Totals } from "./report.ts";
import { createTable, type FileTable } from "./save-table.ts";
import { startPagesOf } from "./start-pages.ts";
import type { Sink, SinkDescription } from "./sink.ts";
import { isManifestOf } from "./unchanged.ts";
import { writeUsedPages } from "./write-pages.ts";

export type { SaveFile, SaveOptions, SaveReport } from "./options.ts";

/**
 * Saves the files as one checkpoint. Each stays mapped until the save has ended, even if it is
 * destroyed meanwhile. Arguments are resolved before this returns. `kept` is the lock of the
 * directory, if the caller keeps it.
 */
export function saveFiles(
  files: readonly SaveFile[],
  userData: UserData,
  place: string,
  options: SaveOptions,
  kept?: KeptLock,
): Promise<SaveReport> {
  const plan = planSave(files, userData, place, options);
  const work = saveWhenLoaded(plan, kept);
  for (const { core } of files) core.hold(work);
  return work;
}

async function saveWhenLoaded(plan: SavePlan, kept?: KeptLock): Promise<SaveReport> {
  for (const { core } of plan.files) {
    if (core.mayMissPages)
      await core.loader!.awaitLoad(0, core.words[Word.SizePages]!, false, plan.signal);
    await core.releaser.released();
  }
  return await whenAdmitted(plan.place, plan.signal, () => saveNow(plan, kept));
}

async function saveNow(plan: SavePlan, kept?: KeptLock): Promise<SaveReport> {
  for (const { core } of plan.files) core.requireStillLive("saveTo()");
  const { place, signal, s3, isIncremental, mode } = plan;
  const cores = plan.files.map(({ core }) => core);
  const sink = await openSink(place, { s3, signal, wantsBase: isIncremental, cores, kept, mode });
  return await closing(sink, () => new Save(plan, sink).run());
}

/** One save into an opened sink. */
class Save {
  private readonly startedAt = performance.now();
  private readonly id = randomId();
  private readonly pageFileId = randomId();
  private readonly plan: SavePlan;
  private readonly sink: Sink;
  private readonly hashSeed: number;
  private readonly frames = new FrameList();
  /** The base's page files; the new one follows. */
  private readonly basePageFiles: readonly PageFile[];
  private readonly isOnBase: boolean;
  /** Files whose tables begin with the base's pages. */
  private readonly based = new Set<FileCore>();
  private readonly userData = new Map<UserData, Uint8Array | null>();
  private readonly totals: Totals = {
    frames: 0,
    compressedFrames: 0,
    writtenBytes: 0,
    writtenPages: 0,
    zeroPages: 0,
    reusedPages: 0,
  };
  private description: SinkDescription | undefined;

  constructor(plan: SavePlan, sink: Sink) {
    this.plan = plan;
    this.sink = sink;
    const base = plan.isIncremental ? sink.base : null;
    this.isOnBase = base !== null;
    this.hashSeed = base?.manifest.hashSeed ?? crypto.getRandomValues(new Uint32Array(1))[0]!;
    this.basePageFiles = base?.manifest.pageFiles ?? [];
  }

  async run(): Promise<SaveReport> {
    const { plan } = this;
    const detectors = new Detectors();
    const isTracked = plan.isConsistent && mostBytes(plan) > bytesAtOnce(plan);
    return await closing(detectors, async () => {
      const tables: FileTable[] = [];
      for (const file of plan.files) tables.push(await this.beginTable(file));
      const baseIdOf = (core: FileCore) => (this.based.has(core) ? this.baseId : null);
      if (isTracked) await detectors.begin(plan, this.hashSeed, baseIdOf);
      const cores = plan.files.map(({ core }, i): SavedCore => {
        return { core, table: tables[i]!, detector: detectors.of(core) };
      });
      const instant = await this.copy(cores);
      const stored = await this.compact(cores, instant.states);
      this.reportProgress();
      const report = await this.finish(cores, instant, stored);
      detectors.committed(report.id);
      return report;
    }).finally(() => {
      // Pages that were freed meanwhile may be committed again, because they were read.
      for (const { core } of plan.files)
        if (!core.isDetached && wasteTouchedFree(core.allocator)) core.releaser.schedule();
    });
  }

  private async beginTable({ name, core }: SaveFile): Promise<FileTable> {
    const table = createTable(pagesToCover(core), true);
    const isBased =
      this.isOnBase && (await inSlices(noteBase(this.sink.base!, name, table, this.frames)));
    if (isBased) this.based.add(core);
    return table;
  }

  private get baseId(): string | null {
    return this.isOnBase ? hex(this.sink.base!.manifest.id) : null;
  }

  private async copy(cores: readonly SavedCore[]): Promise<Instant> {
    const { plan, sink } = this;
    const isFull = this.frames.count === 0;
    this.description = await sink.beginPages(this.pageFileId, isFull ? mostBytes(plan) : 0);
    if (isFull && cores.some(({ core }) => core.loader !== undefined)) {
      const used = cores.map(({ core }) => collectState(core).used);
      await this.writeStart(cores, used);
    }
    const write = (runs: readonly PassRuns[]) => this.write(cores, runs);
    if (plan.isConsistent)
      return await new InstantTaker(cores, plan, write).take(() => this.readUserData());
    this.readUserData();
    const states = cores.map(({ core }) => collectState(core));
    await write(states.map(({ used }) => ({ ...used, address: null })));
    const kept = states.map((state, i) => leaveOutFreed(cores[i]!, state));
    return { states: kept, pauseMs: 0, rounds: [], detection: "none" };
  }

  /** Writes the pages of the programs' starts among `pages`. Returns the others. */
  private async writeStart(
    cores: readonly SavedCore[],
    pages: readonly PageRuns[],
    isMove = false,
  ): Promise<readonly PageRuns[]> {
    const starts = cores.map(({ core }, i) => startPagesOf(core, pages[i]!));
    if (starts.every(({ start }) => start.length === 0)) return pages;
    const pass = starts.map((runs) => ({ ...runs, address: null }));
    await this.write(cores, pass, isMove);
    return pages.map((runs, i) => subtractRuns(runs, starts[i]!));
  }

  private readUserData(): void {
    const { userData, files } = this.plan;
    for (const given of [userData, ...files.map((file) => file.userData)])
      this.userData.set(given, typeof given === "function" ? given() : given);
    checkUserDataBytes([...this.userData.values()]);
  }

  /** Writes the pages that differ from the tables. */
  private async write(
    cores: readonly SavedCore[],
    runs: readonly PassRuns[],
    isMove = false,
  ): Promise<void> {
    const { plan, frames, totals } = this;
    const sources = cores.map(({ core, table }, i) => {
      const { fd, base } = core.mapping;
      const overlay = core.loader?.state.handle.overlay ?? null;
      return { control: core.words.buffer, fd, base, overlay, ...runs[i]!, table: table.handle };
    });
    const written = await writeUsedPages(
      {
        sources,
        hashSeed: this.hashSeed,
        compression: plan.compression,
        firstFrame: frames.count,
        writtenBytes: totals.writtenBytes,
        sink: this.description!,
        progressBytes: totals.writtenPages * PAGE_SIZE,
        isMove,
      },
      plan,
    );
    frames.addRows(this.basePageFiles.length, written.frames, written.frameCount);
    totals.frames += written.frameCount;
    totals.compressedFrames += countCompressed(written.frames.codec, written.frameCount);
    totals.writtenBytes = written.writtenBytes;
    totals.writtenPages += written.writtenPages;
    totals.zeroPages += written.zeroPages;
    totals.reusedPages += written.reusedPages;
  }

  /**
   * Moves live pages of old page files to the new one, so that garbage stays bounded. Returns the
   * stored pages of each file.
   */
  private async compact(
    cores: readonly SavedCore[],
    states: readonly FileState[],
  ): Promise<StoredExtents[]> {
    const { frames, totals } = this;
    const find = async () => {
      const stored: StoredExtents[] = [];
      for (const [i, { table }] of cores.entries())
        stored.push(await inSlices(storedExtents(states[i]!.used, table)));
      return stored;
    };
    const stored = await find();
    if (!this.isOnBase) return stored;
    const sizes = [...this.basePageFiles.map(({ sizeBytes }) => sizeBytes), totals.writtenBytes];
    const budget = Math.max(2 * totals.writtenBytes, LEAST_MOVED_BYTES);
    const moves = planMoves(measureUse(stored, frames, sizes), budget);
    if (moves.size === 0) return stored;
    const runs = await this.writeStart(cores, pagesToMove(stored, frames, moves), true);
    const pass = runs.map((pages) => ({ ...pages, address: null }));
    await this.write(cores, pass, true);
    return await find();
  }

  /** The last report: everything was written. */
  private reportProgress(): void {
    const writtenBytes = this.totals.writtenPages * PAGE_SIZE;
    this.plan.onProgress?.({ writtenBytes, totalBytes: writtenBytes });
  }

  /** Commits the checkpoint, unless it would say what the base says. */
  private async finish(
    cores: readonly SavedCore[],
    instant: Instant,
    stored: readonly StoredExtents[],
  ): Promise<SaveReport> {
    const compose = () => this.compose(cores, instant.states, stored);
    // The manifest is composed while written pages are synced.
    if (!this.isOnBase || this.totals.writtenBytes > 0) return await this.commit(instant, compose);
    const manifest = await compose();
    const kept = await this.keepBase(instant, manifest);
    return kept ?? (await this.commit(instant, async () => manifest));
  }

  /** The report of a save that changes nothing; undefined if the base differs. */
  private async keepBase(
    instant: Instant,
    composed: Manifest<SavedFile>,
  ): Promise<SaveReport | undefined> {
    const { sink } = this;
    const manifest = { ...composed, id: sink.base!.manifest.id };
    const encoded = encodeManifest(manifest);
    if (!isManifestOf(sink.base!, encoded)) return undefined;
    this.plan.signal?.throwIfAborted();
    await sink.keepBase();
    return this.report({ instant, manifest, encoded, isUnchanged: true });
  }

  /** The page file that this save writes. */
  private get pageFile(): PageFile {
    return { id: this.pageFileId, sizeBytes: this.totals.writtenBytes };
  }

  private async commit(
    instant: Instant,
    compose: () => Promise<Manifest<SavedFile>>,
  ): Promise<SaveReport> {
    const { plan, sink, pageFile } = this;
    let made: { manifest: Manifest<SavedFile>; encoded: EncodedManifest } | undefined;
    await sink.commit({
      id: this.id,
      written: pageFile.sizeBytes > 0 ? pageFile : null,
      makeManifest: async () => {
        const manifest = await compose();
        await nextTurn();
        const encoded = encodeManifest(manifest);
        await nextTurn();
        // A load's own checks.
        decodeManifest(encoded.parts[0], encoded.lengthBytes, `${sink.place}/meta`);
        plan.signal?.throwIfAborted();
        made = { manifest, encoded };
        return { manifest: encoded, pageFiles: manifest.pageFiles };
      },
    });
    return this.report({ instant, ...made!, isUnchanged: false });
  }

  /** The manifest, with the page files that have live contents. */
  private async compose(
    cores: readonly SavedCore[],
    states: readonly FileState[],
    stored: readonly StoredExtents[],
  ): Promise<Manifest<SavedFile>> {
    const pageFiles = [...this.basePageFiles, this.pageFile];
    const isLive = pageFiles.map(() => false);
    for (const { frame } of stored)
      for (const number of frame) isLive[this.frames.pageFile[number]!] = true;
    let contents = 0;
    const contentOf = isLive.map((live) => (live ? ++contents : 0));
    const files: SavedFile[] = [];
    for (const [i, { table }] of cores.entries()) {
      const { name, userData } = this.plan.files[i]!;
      const { chunkHuge, runs } = states[i]!;
      const map = await inSlices(
        buildMap(stored[i]!, table, this.frames, (pageFile) => contentOf[pageFile]!),
      );
      const given = this.userData.get(userData) ?? null;
      files.push({ name, chunkHuge, runs, userData: given, ...map });
    }
    return {
      id: this.id,
      hashSeed: this.hashSeed,
      pageFiles: pageFiles.filter((_, i) => isLive[i]),
      files,
      userData: this.userData.get(this.plan.userData) ?? null,
    };
  }

  private report(checkpoint: SavedCheckpoint): SaveReport {
    // Pages that a pass before has written are not the base's.
    const reusedPages = this.based.size === 0 ? 0 : this.totals.reusedPages;
    const totals = { ...this.totals, reusedPages };
    return makeReport(this.plan, totals, checkpoint, performance.now() - this.startedAt);
  }
}

/** The state without pages that were freed before their contents were stored. */
function leaveOutFreed({ core, table }: SavedCore, state: FileState): FileState {
  const freed = findFreed(core, state.used, table);
  if (freed.start.length === 0) return state;
  const runs = withoutFreed(state, freed);
  const used = usedRuns(runs);
  return { ...state, runs, used, usedPages: countPages(used.length) };
}

/** The most bytes of contents that the files can have now. */
function mostBytes({ files }: SavePlan): number {
  return files.reduce(
    (sum, { core }) =>
      sum + Math.min(core.words[Word.UsedPages]! * PAGE_SIZE, core.mapping.memoryBytes),
    0,
  );
}

function countCompressed(codecs: Uint8Array, count: number): number {
  let compressed = 0;
  for (let i = 0; i < count; i++) if (codecs[i] !== 0) compressed++;
  return compressed;
}

function randomId(): bigint {
  return crypto.getRandomValues(new BigUint64Array(1))[0]!;
}
