#!/usr/bin/env bun
/**
 * The command line tool: finds the command, runs it, and turns errors into a message and an exit
 * code. Exit code 0 means success, 1 a damaged checkpoint or a failed operation, 2 a wrong command
 * line.
 */
import packageJson from "../../package.json" with { type: "json" };
import { UsageError } from "./arguments.ts";
import { print } from "./print.ts";

interface Command {
  readonly usage: string;
  readonly summary: string;
  /** Flags and their meanings. */
  readonly flags?: Readonly<Record<string, string>>;
  run(args: string[]): Promise<number>;
}

const FORMAT = {
  "--format native|gvisor": "the checkpoint's format; found by its files otherwise",
};
const JSON_FLAG = { "--json": "print one JSON object instead of text" };
const S3_FLAGS = {
  "--endpoint URL": "an S3 server other than AWS",
  "--region NAME": "its region (default: AWS_REGION)",
  "--path-style": "put the bucket into the path instead of the host name",
};

/**
 * Each command imports its module when it runs, because `--version` must not need native memory.
 */
const commands: Readonly<Record<string, Command>> = {
  demo: {
    usage: "demo [--size MIB] [--directory DIR] [--web]",
    summary: "fill memory, checkpoint it, and restore it in a new process while that runs",
    flags: {
      "--size MIB": "memory to fill (default: 512)",
      "--directory DIR": "where to keep the checkpoint (default: a temporary directory)",
      "--web": "serve the page map while the demo runs",
    },
    run: async (args) => (await import("./demo.ts")).demo(args),
  },
  inspect: {
    usage: "inspect DIR|URL [--json] [--list] [--format native|gvisor] [--endpoint URL] ...",
    summary: "describe a checkpoint",
    flags: { ...JSON_FLAG, "--list": "list every run of pages", ...FORMAT, ...S3_FLAGS },
    run: async (args) => (await import("./inspect.ts")).inspect(args),
  },
  verify: {
    usage: "verify DIR|URL [--json] [--format native|gvisor] [--endpoint URL] ...",
    summary: "check every section and every page of a checkpoint; exits with 1 if any is bad",
    flags: { ...JSON_FLAG, ...FORMAT, ...S3_FLAGS },
    run: async (args) => (await import("./verify.ts")).verify(args),
  },
  list: {
    usage: "list URL [--json] [--endpoint URL] [--region NAME] [--path-style]",
    summary: "list the checkpoints at s3://bucket/prefix, the newest first",
    flags: { ...JSON_FLAG, ...S3_FLAGS },
    run: async (args) => (await import("./list.ts")).list(args),
  },
  copy: {
    usage: "copy FROM TO [--json] [--endpoint URL] [--region NAME] [--path-style]",
    summary: "copy a checkpoint between directories, s3:// URLs, and from https:// URLs",
    flags: { ...JSON_FLAG, ...S3_FLAGS },
    run: async (args) => (await import("./copy.ts")).copy(args),
  },
  prune: {
    usage: "prune URL --keep N [--min-age HOURS] [--dry-run] [--json] [--endpoint URL] ...",
    summary: "remove old checkpoints at s3://bucket/prefix, and objects of writers that died",
    flags: {
      "--keep N": "keep the newest N checkpoints",
      "--min-age HOURS": "keep younger ones, too (default and floor: 24)",
      "--dry-run": "list what would be removed, and remove nothing",
      ...JSON_FLAG,
      ...S3_FLAGS,
    },
    run: async (args) => (await import("./prune.ts")).prune(args),
  },
  map: {
    usage: "map DIR --out FILE.html [--format native|gvisor]",
    summary: "draw a checkpoint page by page, as one HTML file",
    flags: { "--out FILE.html": "the file to write", ...FORMAT },
    run: async (args) => (await import("./map.ts")).map(args),
  },
  bench: {
    usage: "bench [--help] ...",
    summary: "measure this machine, beside gVisor, fio and Bun's own ways",
    run: async (args) => (await import("./bench.ts")).bench(args),
  },
};

function help(): string {
  const lines = Object.values(commands).map(
    ({ usage, summary }) => `  pgalloc ${usage}\n      ${summary}`,
  );
  const purpose = "memory for Bun programs, checkpointed and restored in the background";
  return `pgalloc ${packageJson.version}: ${purpose}

${lines.join("\n")}

  pgalloc COMMAND --help    the command's flags
  pgalloc --help, -h        this text
  pgalloc --version, -V     the version

Exit codes: 0 success, 1 a damaged checkpoint or a failed operation, 2 a wrong command line.`;
}

function commandHelp({ usage, summary, flags = {} }: Command): string {
  const width = Math.max(0, ...Object.keys(flags).map(({ length }) => length)) + 2;
  const lines = Object.entries(flags).map(([flag, meaning]) => `  ${flag.padEnd(width)}${meaning}`);
  return [`pgalloc ${usage}`, `    ${summary}`, ...(lines.length > 0 ? ["", ...lines] : [])].join(
    "\n",
  );
}

/** The command that the arguments name, if there is one. */
function commandOf([name]: readonly string[]): Command | undefined {
  return name !== undefined && Object.hasOwn(commands, name) ? commands[name] : undefined;
}

async function main(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined) throw new UsageError("Expected a command");
  if (name === "--version" || name === "-V" || name === "-v") print(packageJson.version);
  else if (name === "--help" || name === "-h" || name === "help") print(help());
  else {
    const command = commandOf(args);
    if (command === undefined) throw new UsageError(`Unknown command ${JSON.stringify(name)}`);
    const wantsHelp = name !== "bench" && (rest.includes("--help") || rest.includes("-h"));
    if (!wantsHelp) return await command.run(rest);
    print(commandHelp(command));
  }
  return 0;
}

const given = process.argv.slice(2);
try {
  process.exitCode = await main(given);
} catch (error) {
  const isUsage = error instanceof UsageError;
  const isArgument = isArgumentError(error);
  // The library's own errors explain themselves. Any other error is a bug, so its stack is printed.
  const isExpected = isUsage || isArgument || (error instanceof Error && "code" in error);
  const text = isExpected ? (error as Error).message : (error as Error).stack;
  // The reader of a pipe has what it wants.
  const isClosedPipe = isExpected && (error as { code?: unknown }).code === "EPIPE";
  const command = commandOf(given);
  const advice = command === undefined ? help() : commandHelp(command);
  if (!isClosedPipe) console.error(`pgalloc: ${text}${isUsage ? `\n\n${advice}` : ""}`);
  process.exitCode = isUsage || isArgument ? 2 : 1;
}

/** True for what the library throws for an argument that it cannot use, such as a bad URL. */
function isArgumentError(error: unknown): boolean {
  const isKind = error instanceof TypeError || error instanceof RangeError;
  return isKind && error.message.startsWith("Expected ");
}
