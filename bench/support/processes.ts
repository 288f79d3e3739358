/** Child processes and their folder. Both are gone when the bench ends, also after an error. */
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";

export class Workspace implements Disposable {
  readonly directory: string;
  private readonly children = new Set<Bun.Subprocess>();
  private readonly onSignal = (signal: NodeJS.Signals) => {
    this[Symbol.dispose]();
    process.exit(signal === "SIGINT" ? 130 : 143);
  };

  /** Makes a folder of its own in `parent`. */
  constructor(parent: string) {
    this.directory = mkdtempSync(join(parent, "pgalloc-bench-"));
    process.on("SIGINT", this.onSignal);
    process.on("SIGTERM", this.onSignal);
  }

  /**
   * Runs a command, without the checks of the tests. Returns its stdout, and its stderr unless that
   * is inherited.
   * @throws {Error} if it fails
   */
  async run(
    command: string[],
    options: { cwd?: string; stderr?: "inherit" | "pipe" } = {},
  ): Promise<string> {
    const { stderr = "inherit", ...rest } = options;
    const env = { ...process.env, PGALLOC_ASSERT: undefined };
    const child = Bun.spawn(command, { ...rest, env, stdin: "ignore", stdout: "pipe", stderr });
    this.children.add(child);
    try {
      const errors = child.stderr === undefined ? "" : new Response(child.stderr).text();
      const output = await new Response(child.stdout).text();
      const exitCode = await child.exited;
      if (exitCode !== 0)
        throw new Error(`${command.join(" ")} ended with ${exitCode}\n${await errors}`);
      return output;
    } finally {
      this.children.delete(child);
    }
  }

  /** Runs a command that prints one JSON object. */
  async runJson(command: string[]): Promise<Record<string, unknown>> {
    return JSON.parse(await this.run(command)) as Record<string, unknown>;
  }

  [Symbol.dispose](): void {
    process.off("SIGINT", this.onSignal);
    process.off("SIGTERM", this.onSignal);
    for (const child of this.children) child.kill("SIGKILL");
    rmSync(this.directory, { recursive: true, force: true });
  }
}
