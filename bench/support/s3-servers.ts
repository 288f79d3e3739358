/**
 * Servers for the remote bench, as processes of this machine. "ranges" answers from a checkpoint's
 * directory by the least work that there is; "versitygw" is a real S3 server behind a proxy with
 * latency, where VERSITYGW names its program.
 */
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { S3Options } from "../../src/index.ts";

export const KEYS = {
  accessKeyId: "bench",
  secretAccessKey: "bench-secret",
  region: "us-east-1",
} as const;

/** Writes the image to a place, in a directory or in S3. */
export type Save = (where: string, s3: S3Options) => Promise<unknown>;

/** Starts a server with latency over the image in `directory`, which it makes with `save`. */
export type StartServer = (
  options: { readonly directory: string; readonly latencyMs: number },
  save: Save,
) => Promise<RunningServer>;

export interface RunningServer {
  readonly endpoint: string;
  /** The key of the image's page file in the bucket `bucket`. */
  readonly pagesKey: string;
  stop(): Promise<void>;
}

export const SERVERS: Readonly<Record<string, StartServer>> = {
  ranges: startRanges,
  ...(process.env["VERSITYGW"] === undefined ? {} : { versitygw: startVersitygw }),
};

const programOf = (name: string) => join(import.meta.dir, name);

async function startProgram(name: string, ...args: string[]) {
  const program = Bun.spawn([process.execPath, programOf(name), ...args], { stdout: "pipe" });
  const { value } = await program.stdout.getReader().read();
  return { program, port: Number(new TextDecoder().decode(value).trim()) };
}

async function end(...programs: readonly Bun.Subprocess[]): Promise<void> {
  for (const program of programs) program.kill();
  await Promise.all(programs.map(({ exited }) => exited));
}

function pagesKeyIn(directory: string): string {
  return `image/${readdirSync(directory).find((name) => name.startsWith("pages-"))!}`;
}

async function startRanges(
  { directory, latencyMs }: Parameters<StartServer>[0],
  save: Save,
): Promise<RunningServer> {
  const image = join(directory, "ranges");
  if (!existsSync(image)) await save(image, {});
  return { ...(await serveRanges(image, latencyMs)), pagesKey: pagesKeyIn(image) };
}

/** Serves the checkpoint in a directory as s3://bucket/image. */
export async function serveRanges(
  directory: string,
  latencyMs: number,
): Promise<Omit<RunningServer, "pagesKey">> {
  const name = "late-server-program.ts";
  const { program, port } = await startProgram(name, directory, `${latencyMs}`);
  return { endpoint: `http://127.0.0.1:${port}`, stop: () => end(program) };
}

async function startVersitygw(
  { directory, latencyMs }: Parameters<StartServer>[0],
  save: Save,
): Promise<RunningServer> {
  const data = join(directory, "versitygw");
  const isNew = !existsSync(data);
  mkdirSync(join(data, "bucket"), { recursive: true });
  const port = freePort();
  const { accessKeyId, secretAccessKey } = KEYS;
  const keys = ["--access", accessKeyId, "--secret", secretAccessKey];
  const command = [process.env["VERSITYGW"]!, ...keys, "--port", `127.0.0.1:${port}`];
  const server = Bun.spawn([...command, "--quiet", "posix", data], { stdout: "ignore" });
  const direct = `http://127.0.0.1:${port}`;
  while (
    !(await fetch(direct).then(
      () => true,
      () => false,
    ))
  )
    await Bun.sleep(20);
  if (isNew) await save("s3://bucket/image", { endpoint: direct, ...KEYS });
  const { program, port: late } = await startProgram(
    "late-proxy-program.ts",
    `${port}`,
    `${latencyMs}`,
  );
  return {
    endpoint: `http://127.0.0.1:${late}`,
    pagesKey: pagesKeyIn(join(data, "bucket/image")),
    stop: () => end(program, server),
  };
}

function freePort(): number {
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = server;
  server.stop();
  return port;
}
