/**
 * Writes llms.txt (https://llmstxt.org): the package's purpose, its documents, and its public names
 * with the first sentence of their documentation. `npm pack` runs it; `--print` writes to stdout.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";

const root = join(import.meta.dir, "..");
const read = (path: string): string => readFileSync(join(root, path), "utf8");

/** The documents in the order in which a reader needs them; others follow by name. */
const FIRST = [
  "getting-started",
  "concepts",
  "recipes",
  "data",
  "deploying",
  "containers",
  "s3",
  "troubleshooting",
  "upgrading",
];

function listDocuments(): string[] {
  const names = readdirSync(join(root, "docs"))
    .filter((name) => name.endsWith(".md"))
    .map((name) => name.slice(0, -3));
  const rest = names.filter((name) => !FIRST.includes(name)).sort();
  return [...FIRST.filter((name) => names.includes(name)), ...rest];
}

/** Title and first paragraph of a document, without markup. */
function summarize(path: string): { title: string; summary: string } {
  const text = read(path).replace(/^```[\s\S]*?^```\n/gm, "");
  const title = /^# (.+)$/m.exec(text)?.[1] ?? path;
  const paragraphs = text.split(/\n\n+/).slice(1);
  const prose = paragraphs.find((paragraph) => /^[\w`]/.test(paragraph)) ?? "";
  return { title, summary: firstSentence(prose) };
}

function firstSentence(text: string): string {
  const flat = text.replace(/\s+/g, " ").replace(/[*]/g, "").trim();
  // A colon in code ends no sentence.
  return /^(?:`[^`]*`|[^`])+?[.:](?= |$)/.exec(flat)?.[0].replace(/:$/, ".") ?? flat;
}

interface Export {
  readonly name: string;
  readonly summary: string;
}

const DECLARATION =
  /\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\s*export (?:declare )?(?:abstract )?(?:class|function|async function|const|interface|type) (\w+)/g;

/** Documentation of every declaration in a file, and in those that it re-exports, by name. */
function documentationOf(path: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const [, from] of read(path).matchAll(/export (?:\*|\{[^}]*\}) from "(\..+)"/g))
    for (const [name, summary] of documentationOf(join(dirname(path), from!)))
      found.set(name, summary);
  for (const [, comment, name] of read(path).matchAll(DECLARATION)) {
    found.set(name!, firstSentence(comment!.replace(/^\s*\* ?/gm, "").split("@")[0]!));
  }
  return found;
}

/** The names that an index file exports, without types. */
function exportsOf(index: string): Export[] {
  const pattern = /export \{([^}]*)\} from "([^"]+)"/g;
  return [...read(index).matchAll(pattern)].flatMap(([, names, from]) => {
    const documentation = documentationOf(relative(root, join(root, dirname(index), from!)));
    return names!
      .split(",")
      .map((name) => name.trim())
      .filter((name) => name !== "" && !name.startsWith("type "))
      .map((name) => name.split(" as ").at(-1)!)
      .map((name) => ({ name, summary: documentation.get(name) ?? "" }));
  });
}

function compose(): string {
  const packageJson = JSON.parse(read("package.json")) as {
    description: string;
    exports: Record<string, { default?: string; bun?: string } | string>;
  };
  const lines = ["# pgalloc", "", `> ${packageJson.description}.`, "", "## Documents", ""];
  lines.push("- [README](README.md): what it is for, what it does, how fast it is.");
  for (const name of listDocuments()) {
    const { title, summary } = summarize(`docs/${name}.md`);
    lines.push(`- [${title}](docs/${name}.md): ${summary}`);
  }
  lines.push("- [Architecture](ARCHITECTURE.md): the path of a byte, the folders, the glossary.");
  for (const [entry, target] of Object.entries(packageJson.exports)) {
    const source = typeof target === "string" ? target : (target.bun ?? target.default ?? "");
    if (!source.endsWith("index.ts")) continue;
    lines.push("", `## pgalloc${entry.slice(1)}`, "");
    for (const { name, summary } of exportsOf(source.slice(2)))
      lines.push(summary === "" ? `- \`${name}\`` : `- \`${name}\`: ${summary}`);
  }
  return `${lines.join("\n")}\n`;
}

if (process.argv.includes("--print")) process.stdout.write(compose());
else writeFileSync(join(root, "llms.txt"), compose());
