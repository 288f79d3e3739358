/** The shared index's docker-compose.yml: read by a parser, and held against what it starts. */
import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join, normalize } from "node:path";

const root = join(import.meta.dir, "../..");
const directory = join(root, "examples/shared-index");

interface Service {
  readonly image: string;
  readonly command: string;
  readonly working_dir?: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly volumes: readonly string[];
  readonly ports?: readonly string[];
  readonly depends_on?:
    | readonly string[]
    | Readonly<Record<string, { readonly condition: string }>>;
}

interface Compose {
  readonly services: Readonly<Record<string, Service>>;
  readonly volumes: Readonly<Record<string, unknown>>;
}

const compose = Bun.YAML.parse(
  readFileSync(join(directory, "docker-compose.yml"), "utf8"),
) as Compose;
const services = Object.entries(compose.services);
/** Services that run a program of this repository. */
const programs = services.filter(([, { command }]) => command.startsWith("bun "));

/** Keys of a service that the file may use (compose-spec). */
const KEYS = [
  "image",
  "command",
  "working_dir",
  "environment",
  "volumes",
  "ports",
  "depends_on",
] as const;

test("docker-compose.yml has keys of the specification only", () => {
  const top = Object.keys(compose).filter((key) => !key.startsWith("x-"));
  expect(top.toSorted()).toEqual(["services", "volumes"]);
  for (const [, service] of services)
    for (const key of Object.keys(service)) expect(KEYS as readonly string[]).toContain(key);
});

test("docker-compose.yml mounts volumes that it declares, and folders that exist", () => {
  for (const [, { volumes }] of services) {
    for (const volume of volumes) {
      const [from = "", to = ""] = volume.split(":");
      expect(to.startsWith("/")).toBe(true);
      if (from.startsWith(".")) expect(existsSync(join(directory, from))).toBe(true);
      else expect(Object.keys(compose.volumes)).toContain(from);
    }
  }
});

test("docker-compose.yml waits for services that it has", () => {
  for (const [, { depends_on = [] }] of services) {
    const names = Array.isArray(depends_on) ? depends_on : Object.keys(depends_on);
    for (const name of names) expect(Object.keys(compose.services)).toContain(name);
  }
  expect(compose.services["serve"]!.depends_on).toEqual({
    build: { condition: "service_completed_successfully" },
  });
});

test("docker-compose.yml starts programs of the example, with the keys of its server", () => {
  expect(programs.map(([name]) => name)).toEqual(["build", "serve"]);
  const server = compose.services["s3"]!.environment;
  for (const [, { command, working_dir, volumes, environment }] of programs) {
    const [, program] = command.split(" ");
    const [host, inside] = volumes.find((volume) => volume.startsWith("."))!.split(":");
    const folder = normalize(join(directory, host!, working_dir!.slice(inside!.length)));
    expect(existsSync(join(folder, program!))).toBe(true);
    expect(environment["AWS_ACCESS_KEY_ID"]).toBe(server["ROOT_ACCESS_KEY"]!);
    expect(environment["AWS_SECRET_ACCESS_KEY"]).toBe(server["ROOT_SECRET_KEY"]!);
    expect(new URL(environment["AWS_ENDPOINT_URL_S3"]!).host).toBe(`s3${server["VGW_PORT"]}`);
  }
});

test("docker-compose.yml has the version of the server that the tests use", () => {
  const script = readFileSync(join(root, "scripts/test-s3.ts"), "utf8");
  const version = /versitygw@(v[\d.]+)/.exec(script)![1];
  expect(compose.services["s3"]!.image).toBe(`versity/versitygw:${version}`);
});
