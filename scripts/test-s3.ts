/**
 * `npm run test:s3`: the tests of test/servers over real servers. versitygw speaks S3 and is
 * installed with Go; nginx serves ranges and comes from the system or from Debian's archive. What
 * cannot be had is skipped, and said so. Servers stand behind a proxy with latency and faults.
 *
 * `--short` is for CI: it takes a minute at most to get a server, and runs the tests without faults
 * and kills, which take seconds. Go compiles versitygw in 4 minutes on two processors; what it has
 * compiled in a minute is kept for the next run.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";

const VERSITYGW = "github.com/versity/versitygw/cmd/versitygw@v1.8.0";
const root = join(import.meta.dir, "..");
const cache = join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "pgalloc-servers");
const programs: Bun.Subprocess[] = [];
const isShort = process.argv.includes("--short");
/** The time limit of a command that installs a server. */
const INSTALL_MS_MAX = isShort ? 60_000 : 30 * 60_000;
/** Titles of tests without faults and kills. */
const SHORT_TESTS = "^(S3|HTTP) (saveTo|loadFrom)";

const say = (line: string) => console.log(`test:s3: ${line}`);

/** True if the command succeeds in INSTALL_MS_MAX. */
function succeeds(command: string[], options: { cwd?: string; env?: NodeJS.ProcessEnv } = {}) {
  const { env = process.env, ...rest } = options;
  // A file instead of a pipe, because the command's own children may outlive it.
  const log = join(cache, "install.log");
  const output = { stdout: "ignore", stderr: Bun.file(log) } as const;
  const result = Bun.spawnSync(command, { ...rest, ...output, env, timeout: INSTALL_MS_MAX });
  if (result.exitedDueToTimeout === true) say(`${command[0]} took over ${INSTALL_MS_MAX / 1000} s`);
  else if (!result.success) say(readFileSync(log, "utf8").trim().split("\n").at(-1) ?? "");
  return result.success;
}

/** Go, also in the place of its own installer. */
function findGo(): string | null {
  return Bun.which("go") ?? Bun.which("/usr/local/go/bin/go");
}

function findVersitygw(): string | undefined {
  const given = process.env["VERSITYGW"] ?? Bun.which("versitygw");
  if (given) return given;
  const path = join(cache, "versitygw");
  if (existsSync(path)) return path;
  const go = findGo();
  if (go === null) return undefined;
  say(`installing ${VERSITYGW}; this takes some minutes`);
  const env = { ...process.env, GOBIN: cache };
  return succeeds([go, "install", VERSITYGW], { env }) ? path : undefined;
}

function findNginx(): string | undefined {
  const given = process.env["NGINX"] ?? Bun.which("nginx");
  if (given) return given;
  const path = join(cache, "nginx/usr/sbin/nginx");
  if (existsSync(path)) return path;
  if (Bun.which("apt-get") === null || Bun.which("dpkg-deb") === null) return undefined;
  say("fetching nginx from Debian's archive");
  const debs = mkdtempSync(join(tmpdir(), "pgalloc-debs-"));
  try {
    if (!succeeds(["apt-get", "download", "nginx"], { cwd: debs })) return undefined;
    const [deb] = [...new Bun.Glob("*.deb").scanSync(debs)];
    if (deb === undefined) return undefined;
    const isThere = succeeds(["dpkg-deb", "-x", join(debs, deb), join(cache, "nginx")]);
    return isThere && existsSync(path) ? path : undefined;
  } finally {
    rmSync(debs, { recursive: true });
  }
}

function start(command: string[], env: NodeJS.ProcessEnv = process.env) {
  const program = Bun.spawn(command, { env, stdout: "pipe", stderr: "ignore" });
  programs.push(program);
  return program;
}

async function answers(url: string): Promise<void> {
  for (let attempt = 0; attempt < 600; attempt++) {
    try {
      await (await fetch(url)).arrayBuffer();
      return;
    } catch {
      await Bun.sleep(50);
    }
  }
  throw new Error(`No answer from ${url}`);
}

/** The port of a proxy before `target`. */
async function startProxy(target: string, env: Record<string, string> = {}): Promise<string> {
  const path = join(root, "test/servers/support/bad-proxy-program.ts");
  const program = start([process.execPath, path, target], { ...process.env, ...env });
  const { value } = await program.stdout.getReader().read();
  return `http://127.0.0.1:${new TextDecoder().decode(value).trim()}`;
}

function freePort(): number {
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = server;
  server.stop();
  return port;
}

async function startS3(path: string, work: string): Promise<Record<string, string>> {
  const data = join(work, "s3");
  mkdirSync(join(data, "bucket"), { recursive: true });
  const port = freePort();
  const keys = { access: "AKPGALLOC", secret: "pgalloc-test-secret" };
  start([
    path,
    "--access",
    keys.access,
    "--secret",
    keys.secret,
    "--port",
    `:${port}`,
    "posix",
    data,
  ]);
  const direct = `http://127.0.0.1:${port}`;
  await answers(direct);
  return {
    PGALLOC_S3_DIRECT: direct,
    PGALLOC_S3_LATE: await startProxy(direct, {
      PROXY_STRAGGLER_RATE: "0",
      PROXY_BUSY_RATE: "0",
      PROXY_CUT_RATE: "0",
      PROXY_LOST_RATE: "0",
    }),
    PGALLOC_S3_BAD: await startProxy(direct),
    PGALLOC_S3_ACCESS: keys.access,
    PGALLOC_S3_SECRET: keys.secret,
    PGALLOC_S3_DATA: data,
  };
}

async function startNginx(path: string, work: string): Promise<Record<string, string>> {
  const data = join(work, "www");
  mkdirSync(data);
  const port = freePort();
  const configuration = join(work, "nginx.conf");
  writeFileSync(
    configuration,
    `daemon off; pid ${work}/nginx.pid; error_log stderr;
     ${process.getuid?.() === 0 ? "user root;" : ""}
     events {}
     http {
       access_log off; client_body_temp_path ${work}/b; proxy_temp_path ${work}/p;
       fastcgi_temp_path ${work}/f; uwsgi_temp_path ${work}/u; scgi_temp_path ${work}/c;
       server { listen 127.0.0.1:${port}; root ${data}; }
     }`,
  );
  start([path, "-c", configuration, "-p", work]);
  const direct = `http://127.0.0.1:${port}`;
  await answers(direct);
  return {
    PGALLOC_HTTP_DIRECT: direct,
    PGALLOC_HTTP_BAD: await startProxy(direct),
    PGALLOC_HTTP_DATA: data,
  };
}

/** The environment of a server's tests; empty if it does not start, which CI lets pass. */
async function started(server: Promise<Record<string, string>>): Promise<Record<string, string>> {
  try {
    return await server;
  } catch (error) {
    if (!isShort) throw error;
    say(`skipping a server that does not start: ${(error as Error).message}`);
    return {};
  }
}

async function main(args: readonly string[]): Promise<number> {
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(tmpdir(), "pgalloc-servers-"));
  try {
    const env: Record<string, string> = {};
    const versitygw = findVersitygw();
    const nginx = findNginx();
    if (versitygw === undefined)
      say("skipping S3: there is no versitygw, and Go did not install it");
    else Object.assign(env, await started(startS3(versitygw, work)));
    if (nginx === undefined) say("skipping HTTP: there is no nginx");
    else Object.assign(env, await started(startNginx(nginx, work)));
    if (Object.keys(env).length === 0) return 0;
    const given = isShort ? ["-t", SHORT_TESTS] : args;
    const command = [process.execPath, "test", "--timeout", "3600000", "test/servers", ...given];
    const tests = Bun.spawn(command, {
      cwd: root,
      env: { ...process.env, ...env },
      stdout: "inherit",
      stderr: "inherit",
    });
    return await tests.exited;
  } finally {
    for (const program of programs) program.kill();
    await Promise.all(programs.map((program) => program.exited));
    rmSync(work, { recursive: true });
  }
}

process.exitCode = await main(process.argv.slice(2));
