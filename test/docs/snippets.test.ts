/**
 * Every `ts` block of README.md and docs/*.md is a program. It is type-checked as strictly as the
 * library, and executed twice with Bun in a directory that is empty at first, in which "pgalloc" is
 * this checkout. A block that begins with `// not run: reason` is only type-checked, and listed as
 * skipped with its reason.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findSnippets, type Snippet } from "./snippets.ts";

const root = join(import.meta.dir, "../..");
const RUN_TIMEOUT_MS = 60_000;

const documents = ["README.md"];
if (existsSync(join(root, "docs"))) {
  documents.push(
    ...readdirSync(join(root, "docs"))
      .filter((name) => name.endsWith(".md"))
      .sort()
      .map((name) => `docs/${name}`),
  );
}
const programs: { readonly document: string; readonly file: string; readonly snippet: Snippet }[] =
  documents.flatMap((document) =>
    findSnippets(readFileSync(join(root, document), "utf8"))
      .filter(({ language }) => language === "ts" || language === "typescript")
      .map((snippet) => ({
        document,
        snippet,
        file: `${document.replace(/\W/g, "-")}-line-${snippet.line}.ts`,
      })),
  );

/** A program's directory, in which only "pgalloc" and the type packages are found. */
function makeProject(): string {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-docs-"));
  mkdirSync(join(directory, "node_modules"));
  symlinkSync(root, join(directory, "node_modules/pgalloc"));
  for (const types of ["bun-types", "@types"]) {
    symlinkSync(join(root, "node_modules", types), join(directory, "node_modules", types));
  }
  writeFileSync(join(directory, "package.json"), JSON.stringify({ type: "module", private: true }));
  return directory;
}

async function run(command: string[], cwd: string): Promise<{ exitCode: number; output: string }> {
  const child = Bun.spawn(command, {
    cwd,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: RUN_TIMEOUT_MS,
  });
  const [stdout, stderr, exitCode] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  return { exitCode, output: `${stdout}${stderr}` };
}

test("README.md has a program", () => {
  const inReadme = programs.filter(
    ({ document, snippet }) => document === "README.md" && snippet.notRunBecause === undefined,
  );
  expect(inReadme.length).toBeGreaterThan(0);
});

test(
  "every program of the documents type-checks",
  async () => {
    const directory = makeProject();
    try {
      for (const { file, snippet } of programs) writeFileSync(join(directory, file), snippet.code);
      const { compilerOptions } = JSON.parse(readFileSync(join(root, "tsconfig.json"), "utf8"));
      // A reader's program may leave a variable unused. All other rules are the library's.
      const options = {
        ...compilerOptions,
        moduleDetection: "force",
        noUnusedLocals: false,
        noUnusedParameters: false,
      };
      writeFileSync(
        join(directory, "tsconfig.json"),
        JSON.stringify({ compilerOptions: options, include: ["*.ts"] }),
      );
      const { exitCode, output } = await run(
        [join(root, "node_modules/.bin/tsc"), "--pretty", "false"],
        directory,
      );
      expect(output).toBe("");
      expect(exitCode).toBe(0);
    } finally {
      rmSync(directory, { recursive: true });
    }
  },
  RUN_TIMEOUT_MS,
);

describe("program", () => {
  let directory = "";
  beforeAll(() => {
    directory = makeProject();
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  for (const { document, file, snippet } of programs) {
    const name = `${document}:${snippet.line}`;
    if (snippet.notRunBecause !== undefined) {
      test.skip(`${name} (not run: ${snippet.notRunBecause})`, () => {});
      continue;
    }
    test(
      name,
      async () => {
        // Each in its own directory below the project, because a program may write files.
        const cwd = join(directory, file.replace(/\.ts$/, ""));
        mkdirSync(cwd);
        writeFileSync(join(cwd, file), snippet.code);
        // The second run restores what the first has saved.
        for (const start of ["first", "second"]) {
          const { exitCode, output } = await run([process.execPath, "--no-install", file], cwd);
          if (exitCode !== 0)
            throw new Error(`${name}: exit code ${exitCode} at its ${start} start:\n${output}`);
        }
      },
      RUN_TIMEOUT_MS,
    );
  }
});

describe("findSnippets", () => {
  test("finds language, line, code, and the reason for not running", () => {
    const text = [
      "text",
      "```ts",
      "// not run: needs a disk",
      "a();",
      "```",
      "",
      "  ```sh",
      "  npm ci",
      "  ```",
    ].join("\n");
    expect(findSnippets(text)).toEqual([
      {
        language: "ts",
        line: 2,
        code: "// not run: needs a disk\na();",
        notRunBecause: "needs a disk",
      },
      { language: "sh", line: 7, code: "npm ci", notRunBecause: undefined },
    ]);
  });

  test("refuses an open fence, and a reason that is empty", () => {
    expect(() => findSnippets("```ts\nx")).toThrow("line 1 is never closed");
    expect(() => findSnippets("```ts\n// not run:\n```")).toThrow("for no reason");
  });
});
