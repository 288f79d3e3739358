/**
 * Starts a server with the certificate beside this file, reads from it as `https://HOSTNAME`, and
 * prints the status and body, or the code of the error. NODE_EXTRA_CA_CERTS is read at the start of
 * a process, so this is one.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { sendOverConnection } from "../../../../src/http/connections.ts";

const pem = (name: string) => readFileSync(join(import.meta.dir, name), "utf8");
const server = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  tls: { key: pem("key.pem"), cert: pem("certificate.pem") },
  fetch: () => new Response("hi", { status: 206 }),
});
const url = `https://${process.argv[2]}:${server.port}/`;
const { signal } = new AbortController();
try {
  const incoming = await sendOverConnection({ method: "GET", url, headers: {}, signal });
  let text = "";
  await incoming.read((piece) => {
    text += Buffer.from(piece).toString();
  });
  console.log(incoming.status, text);
} catch (error) {
  console.log((error as { code?: unknown }).code ?? error);
}
await server.stop(true);
process.exit(0);
