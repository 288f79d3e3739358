/** The Go program in gvisor/ as a contender; built if Go is installed. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Bench, Params, Run, Sample } from "../support/bench.ts";
import type { Workspace } from "../support/processes.ts";

const SOURCES = join(import.meta.dir, "gvisor");

export class GvisorPeer {
  private readonly hashes = new Map<string, string>();

  private constructor(
    private readonly workspace: Workspace,
    private readonly binary: string,
    readonly version: string,
  ) {}

  /** The peer, or the reason why it cannot be used. */
  static async build(workspace: Workspace): Promise<GvisorPeer | string> {
    const go = Bun.which("go");
    if (go === null) return "gVisor: no Go toolchain (go) in PATH";
    if (!existsSync(join(SOURCES, "go.mod")))
      return "gVisor: its sources are not in this installation";
    const binary = join(workspace.directory, "gvisor-peer");
    try {
      await workspace.run([go, "build", "-o", binary, "."], { cwd: SOURCES, stderr: "pipe" });
    } catch (error) {
      return `gVisor: ${(error as Error).message.trim()}`;
    }
    const { gvisor, go: goVersion } = await workspace.runJson([
      binary,
      "alloc",
      "-live",
      "1",
      "-ops",
      "1",
      "-rounds",
      "1",
    ]);
    return new GvisorPeer(workspace, binary, `gVisor ${String(gvisor)}, ${String(goVersion)}`);
  }

  async measure(bench: Bench, params: Params, run: Run): Promise<Sample> {
    const { gvisor } = bench;
    if (gvisor === undefined) throw new Error(`gVisor has nothing like ${bench.subject}`);
    const image = gvisor.prepare?.(params, run);
    if (image !== undefined && !existsSync(image.image)) await this.run(image.arguments);
    const output = await this.run(gvisor.arguments(params, run));
    // Once for each case, because the peer is deterministic.
    const key = JSON.stringify([bench.subject, params]);
    if (gvisor.hash !== undefined && !this.hashes.has(key)) {
      this.hashes.set(key, await gvisor.hash(params, run, (commandLine) => this.run(commandLine)));
    }
    return {
      figures: (output["median"] ?? numbersOf(output)) as Record<string, number>,
      hash: this.hashes.get(key) ?? null,
      ...(output["traceHash"] === undefined ? {} : { traceHash: String(output["traceHash"]) }),
    };
  }

  private run(commandLine: string[]): Promise<Record<string, unknown>> {
    return this.workspace.runJson([this.binary, ...commandLine]);
  }
}

/** The output of a command that measures nothing. */
function numbersOf(output: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(output).filter(
      ([name, value]) => typeof value === "number" && name !== "gomaxprocs",
    ),
  );
}
