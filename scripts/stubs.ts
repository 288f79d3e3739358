/**
 * Writes stubs/: a module for each entry of the package that exports the same names as the sources,
 * for runtimes that cannot load them. `--check` fails if a file there is out of date.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dir, "..");
const packageJson = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
  exports: Record<string, { bun: string; default: string } | string>;
};

/** The right side of `export const name = `. */
function stubOf(name: string, value: unknown): string {
  if (typeof value === "object" && value !== null)
    return `{ ${Object.entries(value)
      .map(([key, field]) => `${key}: ${JSON.stringify(field)}`)
      .join(", ")} }`;
  if (typeof value !== "function") return JSON.stringify(value);
  return value.prototype instanceof Error ? `errorClass("${name}")` : `needsBun("${name}")`;
}

async function writeStub(bun: string, path: string): Promise<string> {
  const entry = (await import(join(root, bun))) as Record<string, unknown>;
  const lines = Object.keys(entry)
    .sort()
    .map((name) => `export const ${name} = ${stubOf(name, entry[name])};`);
  const used = ["errorClass", "needsBun"].filter((name) =>
    lines.some((line) => line.includes(`${name}(`)),
  );
  const depth = path.split("/").length - 2;
  const from = `${depth === 1 ? "./" : "../"}needs-bun.js`;
  const imports = `import { ${used.join(", ")} } from "${from}";`;
  return `// Written by scripts/stubs.ts.\n${imports}\n\n${lines.join("\n")}\n`;
}

let stale = 0;
for (const target of Object.values(packageJson.exports)) {
  if (typeof target === "string") continue;
  const path = join(root, target.default);
  const text = await writeStub(target.bun, target.default);
  if (existsSync(path) && readFileSync(path, "utf8") === text) continue;
  if (process.argv.includes("--check")) {
    console.error(`${target.default} is stale; run \`bun scripts/stubs.ts\``);
    stale++;
  } else writeFileSync(path, text);
}
process.exit(stale === 0 ? 0 : 1);
