/**
 * A proxy with latency, as a process: it hands on what a client sends after LATENCY_MS, and answers
 * at once. So each request takes a round trip longer, and no byte is looked at: `bun
 * late-proxy-program.ts PORT LATENCY_MS` prints its port.
 */
import type { Socket } from "bun";

const [target, latency] = process.argv.slice(2) as [string, string];
const latencyMs = Number(latency);

interface Side {
  other: Socket<Side> | undefined;
  /** What the other side sent, and this one has not taken. */
  readonly waiting: Buffer[];
}

/** Hands bytes on; the sender pauses until they are taken. */
function pass(to: Socket<Side>, from: Socket<Side>, bytes: Buffer): void {
  const { waiting } = to.data;
  const written = waiting.length === 0 ? Math.max(0, to.write(bytes)) : 0;
  if (written === bytes.length) return;
  waiting.push(bytes.subarray(written));
  from.pause();
}

function drain(socket: Socket<Side>): void {
  const { waiting, other } = socket.data;
  while (waiting.length > 0) {
    const bytes = waiting[0]!;
    const written = Math.max(0, socket.write(bytes));
    if (written < bytes.length) {
      waiting[0] = bytes.subarray(written);
      return;
    }
    waiting.shift();
  }
  other?.resume();
}

const close = (socket: Socket<Side>): void => void socket.data.other?.end();

const server = Bun.listen<Side>({
  hostname: "127.0.0.1",
  port: 0,
  socket: {
    async open(client) {
      client.data = { other: undefined, waiting: [] };
      client.pause();
      client.data.other = await Bun.connect<Side>({
        hostname: "127.0.0.1",
        port: Number(target),
        data: { other: client, waiting: [] },
        socket: {
          data: (from, bytes) => pass(client, from, bytes),
          drain,
          close,
        },
      });
      client.resume();
    },
    data(from, bytes) {
      setTimeout(() => pass(from.data.other!, from, bytes), latencyMs);
    },
    drain,
    close,
  },
});
console.log(server.port);
