/**
 * The connections of this thread, by server. A connection that has answered waits here for the next
 * request, so that a request needs no round trips for TCP and TLS.
 */
import { Connection, ConnectionLostError } from "./connection.ts";
import type { Incoming, Outgoing } from "./incoming.ts";

/** Servers close idle connections after 5 to 60 s. */
const IDLE_MS = 8_000;
const IDLE_MAX = 128;

interface Idle {
  readonly connection: Connection;
  readonly timer: Timer;
}

const idleByOrigin = new Map<string, Idle[]>();

function rest(origin: string, connection: Connection): void {
  const idle = idleByOrigin.get(origin) ?? [];
  idleByOrigin.set(origin, idle);
  if (idle.length >= IDLE_MAX) {
    connection.close();
    return;
  }
  const timer = setTimeout(() => {
    const at = idle.findIndex((entry) => entry.connection === connection);
    if (at >= 0) idle.splice(at, 1);
    connection.close();
  }, IDLE_MS);
  timer.unref();
  idle.push({ connection, timer });
}

/** The connection that was used last, if one is idle. */
function takeIdle(origin: string): Connection | undefined {
  const idle = idleByOrigin.get(origin) ?? [];
  for (let last = idle.pop(); last !== undefined; last = idle.pop()) {
    clearTimeout(last.timer);
    if (!last.connection.isClosed) return last.connection;
  }
  return undefined;
}

/**
 * Sends a request without a body on an idle connection or on a new one. If an idle connection is
 * lost before any answer, the request is sent again at once, because the server closed the
 * connection while it was idle.
 *
 * @throws {ConnectionLostError} {ProtocolError}
 * @throws {Error} with a `code` if there is no connection
 * @throws the signal's reason
 */
export async function sendOverConnection(request: Outgoing): Promise<Incoming> {
  const url = new URL(request.url);
  const { origin } = url;
  for (;;) {
    const idle = takeIdle(origin);
    const connection =
      idle ?? (await Connection.open(url, (ended) => rest(origin, ended), request.signal));
    try {
      return await connection.send(request);
    } catch (error) {
      connection.close();
      if (idle === undefined || !(error instanceof ConnectionLostError)) throw error;
    }
  }
}

/**
 * Opens connections to the server of `url` until `count` are idle. Resolves when they are open, or
 * failed: the next request will report the error.
 */
export async function warmConnections(url: string, count: number): Promise<void> {
  const target = new URL(url);
  const { origin } = target;
  const missing = count - (idleByOrigin.get(origin)?.length ?? 0);
  const opened = Array.from({ length: Math.max(0, missing) }, async () => {
    rest(origin, await Connection.open(target, (ended) => rest(origin, ended)));
  });
  await Promise.allSettled(opened);
}

/** How many connections are idle. For tests. */
export function idleConnections(): number {
  return [...idleByOrigin.values()].reduce((sum, idle) => sum + idle.length, 0);
}

/** Closes the idle connections of this thread. */
export function closeIdleConnections(): void {
  for (const idle of idleByOrigin.values()) {
    for (const { connection, timer } of idle.splice(0)) {
      clearTimeout(timer);
      connection.close();
    }
  }
  idleByOrigin.clear();
}
