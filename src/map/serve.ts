/**
 * A server for the page map of running files, for development. It answers on the loopback interface
 * by default. It refuses requests that do not name the host it listens on, so a page of another
 * site cannot read it through a name that resolves to this machine.
 */
import { Field } from "../control/control.ts";
import type { FileCore } from "../core/core.ts";
import { subscribe } from "../metrics/events.ts";
import { modelOf, pageMarksOf, updateOf } from "./from-file.ts";
import type { AwaitRow } from "./model.ts";
import { renderPage } from "./page.ts";

export interface ServeMapOptions {
  /** Default: a free port. */
  readonly port?: number | undefined;
  /** The address to listen on. Default: "127.0.0.1". */
  readonly hostname?: string | undefined;
  /** Shown above the map. Default: the files' names. */
  readonly title?: string | undefined;
}

/** A running server of a page map. */
export interface MapServer extends AsyncDisposable {
  readonly url: string;
  /** Ends all connections. */
  stop(): Promise<void>;
}

const UPDATE_MS = 250;
/** The slowest waits that are kept for each file. */
const AWAITS_MAX = 20;

interface AwaitMessage {
  readonly fileId: number;
  readonly cause: string;
  readonly start: number;
  readonly end: number;
  readonly endedMs: number;
  readonly waitMs: number;
}

/** Keeps the slowest waits of each file, including waits from before the server started. */
class SlowAwaits {
  private readonly rows = new Map<number, AwaitRow[]>();
  private close = () => {};

  async open(): Promise<void> {
    const listen = (message: unknown) => this.add(message as AwaitMessage);
    this.close = await subscribe("pgalloc:await", listen);
  }

  private add({ fileId, cause, start, end, endedMs, waitMs }: AwaitMessage): void {
    const rows = this.rows.get(fileId) ?? [];
    rows.push({ cause, start, end, endedMs, waitMs });
    rows.sort((a, b) => b.waitMs - a.waitMs).splice(AWAITS_MAX);
    this.rows.set(fileId, rows);
  }

  of(core: FileCore): readonly AwaitRow[] {
    return this.rows.get(core.control.fields[Field.FileId]!) ?? [];
  }

  stop(): void {
    this.close();
  }
}

/** Checked, and complete but for the title. */
interface CheckedOptions {
  readonly port: number;
  readonly hostname: string;
  readonly title: string | undefined;
}

export async function serveCores(
  cores: readonly FileCore[],
  { port, hostname, title: given }: CheckedOptions,
): Promise<MapServer> {
  const title = given ?? cores.map(({ name }) => name).join(", ");
  const awaits = new SlowAwaits();
  await awaits.open();
  const model = () => modelOf(cores, title);
  const serve = () =>
    Bun.serve({
      port,
      hostname,
      idleTimeout: 0,
      fetch(request) {
        const url = new URL(request.url);
        if (!isExpectedHost(url.hostname, hostname)) return new Response(null, { status: 403 });
        for (const core of cores) core.requireLive("serveMap()");
        if (url.pathname === "/") return htmlResponse(renderPage(model()));
        if (url.pathname === "/model") return Response.json(model());
        if (url.pathname === "/live") return liveResponse(cores, awaits, request.signal);
        if (url.pathname === "/pages") return pagesResponse(cores, url.searchParams);
        return new Response("Not found\n", { status: 404 });
      },
      error: (error) => new Response(`${error.message}\n`, { status: 503 }),
    });
  let server: ReturnType<typeof serve>;
  try {
    server = serve();
  } catch (error) {
    awaits.stop();
    throw error;
  }
  const stop = async () => {
    awaits.stop();
    await server.stop(true);
  };
  return { url: server.url.href, stop, [Symbol.asyncDispose]: stop };
}

function isExpectedHost(requested: string, hostname: string): boolean {
  if (hostname !== "127.0.0.1" && hostname !== "localhost" && hostname !== "::1") return true;
  return ["127.0.0.1", "localhost", "[::1]"].includes(requested);
}

function htmlResponse(html: string): Response {
  return new Response(html, {
    headers: {
      "content-type": "text/html; charset=utf-8",
      "content-security-policy":
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; " +
        "img-src data:; connect-src 'self'",
    },
  });
}

/** Server-sent events: an update at once, then one after each interval with a change. */
function liveResponse(
  cores: readonly FileCore[],
  awaits: SlowAwaits,
  signal: AbortSignal,
): Response {
  let timer: ReturnType<typeof setInterval> | undefined;
  let last = "";
  const send = (controller: ReadableStreamDefaultController<string>) => {
    if (cores.some(({ isDetached }) => isDetached)) {
      clearInterval(timer);
      controller.close();
      return;
    }
    const { nowMs, ...rest } = updateOf(cores, (core) => awaits.of(core));
    const text = JSON.stringify(rest);
    if (text === last) return;
    last = text;
    controller.enqueue(`data: ${JSON.stringify({ nowMs, ...rest })}\n\n`);
  };
  const stream = new ReadableStream<string>({
    start(controller) {
      send(controller);
      timer = setInterval(() => send(controller), UPDATE_MS);
      timer.unref();
      signal.addEventListener("abort", () => clearInterval(timer));
    },
    cancel: () => clearInterval(timer),
  });
  return new Response(stream as unknown as ReadableStream<Uint8Array>, {
    headers: { "content-type": "text/event-stream", "cache-control": "no-store" },
  });
}

function pagesResponse(cores: readonly FileCore[], query: URLSearchParams): Response {
  const core = cores[Number(query.get("file"))];
  const unit = Number(query.get("unit"));
  if (core === undefined || !Number.isInteger(unit) || unit < 0)
    return new Response("Expected file and unit\n", { status: 400 });
  return new Response(pageMarksOf(core, unit));
}
