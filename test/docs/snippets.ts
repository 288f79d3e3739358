/** Finds the fenced code blocks of Markdown text. */

export interface Snippet {
  /** The fence's language, in lower case: "ts". */
  readonly language: string;
  /** The line of the opening fence, counted from 1. */
  readonly line: number;
  readonly code: string;
  /**
   * The reason why the block is not executed; undefined if it is. Its first line is then `// not
   * run: reason`.
   */
  readonly notRunBecause: string | undefined;
}

const NOT_RUN = /^\/\/ not run: *(.*)/;

/**
 * All fenced blocks, in order.
 * @throws {Error} for a fence that is never closed, and for "not run" without a reason
 */
export function findSnippets(markdown: string): Snippet[] {
  const snippets: Snippet[] = [];
  const lines = markdown.split("\n");
  for (let i = 0; i < lines.length; i++) {
    const fence = /^( *)(`{3,})([^`]*)$/.exec(lines[i]!);
    if (fence === null) continue;
    const [, indent, ticks, info] = fence as unknown as [string, string, string, string];
    const start = i + 1;
    const end = lines.findIndex((line, at) => at >= start && line.trim().startsWith(ticks));
    if (end === -1) throw new Error(`The fence at line ${i + 1} is never closed`);
    const code = lines
      .slice(start, end)
      .map((line) => (line.startsWith(indent) ? line.slice(indent.length) : line));
    const notRun = NOT_RUN.exec(code[0] ?? "");
    if (notRun !== null && notRun[1] === "")
      throw new Error(`The block at line ${i + 1} is not run for no reason`);
    snippets.push({
      language: (info.trim().split(/[\s,{]/)[0] ?? "").toLowerCase(),
      line: i + 1,
      code: code.join("\n"),
      notRunBecause: notRun?.[1],
    });
    i = end;
  }
  return snippets;
}
