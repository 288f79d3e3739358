/**
 * Finds functions and counts their lines, by indentation. The formatter guarantees the rule that
 * this needs: a block's closing brace is the first later line with the indentation of the line that
 * opens it.
 */

export interface FunctionSize {
  /** Line of the signature, counted from 1. */
  readonly line: number;
  readonly lines: number;
}

const CONTROL = /^(\} )?(if|else|for|while|switch|catch|do|try|finally|with|class|interface)\b/;
const METHOD = /^[\w\s#*[\].]+(<[\s\S]*>)?\([\s\S]*\)(: [\s\S]+)? \{$/;

function indentOf(line: string): number {
  return line.length - line.trimStart().length;
}

/** The text from the line where the signature starts to the line that opens the body. */
function findSignature(lines: readonly string[], open: number): { first: number; text: string } {
  const indent = indentOf(lines[open]!);
  let first = open;
  if (lines[open]!.trimStart().startsWith(")")) {
    do first--;
    while (first > 0 && (lines[first] === "" || indentOf(lines[first]!) > indent));
  }
  const text = lines.slice(first, open + 1).map((line) => line.trim());
  return { first, text: text.join(" ") };
}

export function measureFunctions(text: string): FunctionSize[] {
  const lines = text.split("\n");
  const found: FunctionSize[] = [];
  for (const [open, line] of lines.entries()) {
    if (!line.endsWith("{") || /^\s*(\*|\/\/)/.test(line)) continue;
    const signature = findSignature(lines, open);
    if (CONTROL.test(signature.text)) continue;
    const isFunction = /=> \{$/.test(signature.text) || /\bfunction\b/.test(signature.text);
    if (!isFunction && !METHOD.test(signature.text)) continue;
    const closing = `${" ".repeat(indentOf(line))}}`;
    const close = lines.findIndex((later, at) => at > open && later.startsWith(closing));
    if (close < 0) throw new Error(`Expected a closing brace for line ${open + 1}`);
    found.push({ line: signature.first + 1, lines: close - signature.first + 1 });
  }
  return found;
}
