/**
 * A proxy that makes a good server a bad one: late answers, stragglers, 503s and cut connections,
 * drawn from a seed. A process of its own: `bun bad-proxy-program.ts TARGET`, with rates in the
 * environment. It prints its port.
 */
import http, { type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

const target = new URL(process.argv[2]!);
const rate = (name: string, fallback: number) => Number(process.env[name] ?? fallback);
const LATENCY_MS = rate("PROXY_LATENCY_MS", 30);
const STRAGGLER_RATE = rate("PROXY_STRAGGLER_RATE", 0.02);
const STRAGGLER_MS = rate("PROXY_STRAGGLER_MS", 400);
const BUSY_RATE = rate("PROXY_BUSY_RATE", 0.02);
const CUT_RATE = rate("PROXY_CUT_RATE", 0.02);
const LOST_RATE = rate("PROXY_LOST_RATE", 0.01);

let state = rate("PROXY_SEED", 1);
function random(): number {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return state / 2 ** 32;
}

const agent = new http.Agent({ keepAlive: true });

const server = http.createServer((request, response) => {
  const lateMs = random() < STRAGGLER_RATE ? STRAGGLER_MS : 0;
  const fate = random();
  const pieces: Buffer[] = [];
  request.on("data", (piece: Buffer) => pieces.push(piece));
  request.on("error", () => response.destroy());
  request.on("end", () => {
    setTimeout(() => answer(request, response, Buffer.concat(pieces), fate), LATENCY_MS + lateMs);
  });
});

function answer(
  request: IncomingMessage,
  response: ServerResponse,
  body: Buffer,
  fate: number,
): void {
  if (response.destroyed) return;
  if (fate < BUSY_RATE) {
    response.writeHead(503, { "content-type": "application/xml" });
    response.end("<Error><Code>SlowDown</Code></Error>");
    return;
  }
  const isCut = fate < BUSY_RATE + CUT_RATE;
  const isLost = !isCut && fate < BUSY_RATE + CUT_RATE + LOST_RATE;
  const forwarded = http.request(
    {
      agent,
      hostname: target.hostname,
      port: target.port,
      method: request.method,
      path: request.url,
      headers: { ...request.headers, "content-length": body.length },
    },
    (found) => {
      if (isLost) {
        found.resume();
        request.socket.destroy();
        return;
      }
      response.writeHead(found.statusCode ?? 502, found.headers);
      if (!isCut) {
        found.pipe(response);
        return;
      }
      found.once("data", (piece: Buffer) => {
        response.write(piece.subarray(0, piece.length >> 1));
        setTimeout(() => response.destroy(), 5);
        found.destroy();
      });
      found.once("end", () => response.end());
    },
  );
  forwarded.on("error", () => response.destroy());
  forwarded.end(body);
}

server.listen(0, "127.0.0.1", () => console.log((server.address() as AddressInfo).port));
