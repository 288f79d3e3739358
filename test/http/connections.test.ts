/** Connections of a thread: kept, used again, lost, ended, and trusted or not. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { once } from "node:events";
import net from "node:net";
import { join } from "node:path";
import { ConnectionLostError } from "../../src/http/connection.ts";
import {
  closeIdleConnections,
  idleConnections,
  sendOverConnection,
  warmConnections,
} from "../../src/http/connections.ts";

/** A server that answers with `answers[i]` to request i, and counts connections. */
class TextServer {
  readonly requests: string[] = [];
  connections = 0;
  closed = 0;
  answer: (socket: net.Socket) => void = (socket) => {
    socket.write("HTTP/1.1 206 x\r\nContent-Length: 2\r\n\r\nhi");
  };
  private readonly sockets = new Set<net.Socket>();
  private readonly server = net.createServer((socket) => {
    this.connections++;
    this.sockets.add(socket);
    socket.on("data", (bytes) => {
      this.requests.push(bytes.toString());
      this.answer(socket);
    });
    socket.on("error", () => undefined);
    socket.on("close", () => this.closed++);
  });

  async start(): Promise<string> {
    this.server.listen(0, "127.0.0.1");
    await once(this.server, "listening");
    return `http://127.0.0.1:${(this.server.address() as net.AddressInfo).port}/bucket/key?a=b`;
  }

  endAll(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  async stop(): Promise<void> {
    this.endAll();
    this.server.close();
    await once(this.server, "close");
  }
}

let server: TextServer;
let url: string;

beforeEach(async () => {
  server = new TextServer();
  url = await server.start();
});
afterEach(async () => {
  closeIdleConnections();
  await server.stop();
});

async function read(signal = new AbortController().signal, at = url): Promise<string> {
  const incoming = await sendOverConnection({
    method: "GET",
    url: at,
    headers: { a: "1" },
    signal,
  });
  let text = "";
  await incoming.read((piece) => {
    text += Buffer.from(piece).toString();
  });
  return text;
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await Bun.sleep(1);
}

describe("sendOverConnection", () => {
  test("sends path, query, host and headers, and uses the connection again", async () => {
    for (let i = 0; i < 3; i++) expect(await read()).toBe("hi");
    expect(server.connections).toBe(1);
    expect(server.requests[2]).toBe(
      `GET /bucket/key?a=b HTTP/1.1\r\nhost: ${new URL(url).host}\r\na: 1\r\n\r\n`,
    );
  });

  test("has a connection for each request that is under way", async () => {
    expect(await Promise.all(Array.from({ length: 5 }, () => read()))).toEqual(
      new Array(5).fill("hi"),
    );
    expect(server.connections).toBe(5);
    expect(idleConnections()).toBe(5);
  });

  test("sends a request again that a connection lost which was idle", async () => {
    await read();
    server.answer = (socket) => {
      // The first one was idle too long; a new one is answered.
      if (server.connections === 1) socket.destroy();
      else socket.write("HTTP/1.1 206 x\r\nContent-Length: 2\r\n\r\nok");
    };
    expect(await read()).toBe("ok");
    expect(server.connections).toBe(2);
  });

  test("does not send a request again that a new connection lost", async () => {
    server.answer = (socket) => socket.destroy();
    await expect(read()).rejects.toThrow(ConnectionLostError);
    expect(server.connections).toBe(1);
  });

  test("forgets an idle connection that the server closes", async () => {
    await warmConnections(url, 3);
    await until(() => server.connections === 3);
    server.endAll();
    await until(() => server.closed === 3);
    expect(await read()).toBe("hi");
    expect(server.connections).toBe(4);
  });

  test("closes the connection at once when its signal aborts", async () => {
    server.answer = (socket) => {
      socket.write("HTTP/1.1 206 x\r\nContent-Length: 100\r\n\r\nhi");
    };
    const abort = new AbortController();
    const reading = read(abort.signal);
    await until(() => server.requests.length === 1);
    abort.abort(new Error("the program's reason"));
    await expect(reading).rejects.toThrow("the program's reason");
    await until(() => server.closed === 1);
    expect(idleConnections()).toBe(0);
  });

  test("rejects with the reason of a signal that has aborted before", async () => {
    await expect(read(AbortSignal.abort(new Error("before")))).rejects.toThrow("before");
    await warmConnections(url, 1);
    await expect(read(AbortSignal.abort(new Error("before")))).rejects.toThrow("before");
    expect(server.requests).toEqual([]);
  });

  test("refuses a header that would begin another line", async () => {
    const { signal } = new AbortController();
    const headers = { token: "a\r\nhost: other" };
    await expect(sendOverConnection({ method: "GET", url, headers, signal })).rejects.toThrow(
      "visible characters",
    );
    expect(server.requests).toEqual([]);
  });

  test("names a server that refuses connections", async () => {
    const reading = read(undefined, "http://127.0.0.1:1/");
    await expect(reading).rejects.toMatchObject({ code: "ECONNREFUSED" });
  });
});

test("warmConnections opens as many as are missing", async () => {
  await warmConnections(url, 2);
  await warmConnections(url, 4);
  await until(() => server.connections === 4);
  expect(idleConnections()).toBe(4);
  expect(await read()).toBe("hi");
  expect(server.connections).toBe(4);
});

describe("a certificate", () => {
  /** Runs the program below with the certificates that it is to trust. */
  async function ask(hostname: string, trusts: boolean): Promise<string> {
    const directory = join(import.meta.dir, "support/tls");
    const env: NodeJS.ProcessEnv = { ...process.env };
    if (trusts) env["NODE_EXTRA_CA_CERTS"] = join(directory, "certificate.pem");
    const program = Bun.spawn([process.execPath, join(directory, "read-program.ts"), hostname], {
      env,
      stdout: "pipe",
    });
    return (await program.stdout.text()).trim();
  }

  test("that is trusted and names the host is taken", async () => {
    expect(await ask("localhost", true)).toBe("206 hi");
  });

  test("that is not trusted is refused", async () => {
    expect(await ask("localhost", false)).toBe("DEPTH_ZERO_SELF_SIGNED_CERT");
  });

  test("of another host is refused", async () => {
    expect(await ask("127.0.0.1", true)).toBe("ERR_TLS_CERT_ALTNAME_INVALID");
  });
});
