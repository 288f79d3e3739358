/**
 * Draws the goals as an SVG chart: a bar for each line, from 1× (the peer) to how many times better
 * pgalloc is, on a logarithmic axis, with a mark at the goal. Lines without a goal are only in the
 * table. The colours are readable on light and on dark pages.
 */
import { formatBytes } from "../../src/cli/bytes.ts";
import { digits } from "./format.ts";
import type { Results } from "./results.ts";
import { type TargetLine, targetLines } from "./targets.ts";

const LABEL_WIDTH = 400;
const PLOT_WIDTH = 420;
const RIGHT_WIDTH = 70;
const ROW_HEIGHT = 20;
const TOP = 78;
const BOTTOM = 46;

const STYLE = `
    text { font: 12px system-ui, sans-serif; fill: #6e7781 }
    .title { font-size: 15px; font-weight: 600 }
    .met { fill: #2da44e } .missed { fill: #cf522e }
    .grid { stroke: #8c959f; stroke-opacity: .3 } .one { stroke: #8c959f; stroke-width: 1.5 }
    .goal { stroke: #9a6700; stroke-width: 3 }
    @media (prefers-color-scheme: dark) { text { fill: #9da7b1 } .goal { stroke: #d4a72c } }`;

function describeMachine({ cpu, cores, kernel, bun }: Results["machine"]): string {
  return `${cpu}, ${cores} cores, Linux ${kernel}, Bun ${bun}`;
}

/** The chart of a run. Without the peer it is an empty axis. */
export function drawChart(results: Results): string {
  const lines = targetLines(results).filter(
    (one): one is TargetLine & { ahead: NonNullable<TargetLine["ahead"]> } =>
      Boolean(one.goal && one.ahead && Number.isFinite(one.ahead.median) && one.ahead.median > 0),
  );
  const values = lines.flatMap(({ ahead, neededAhead }) => [ahead.median, neededAhead ?? 1]);
  const low = Math.floor(Math.log2(Math.min(0.5, ...values)));
  const high = Math.ceil(Math.log2(Math.max(2, ...values)));
  const x = (times: number) => LABEL_WIDTH + ((Math.log2(times) - low) / (high - low)) * PLOT_WIDTH;
  const width = LABEL_WIDTH + PLOT_WIDTH + RIGHT_WIDTH;
  const height = TOP + lines.length * ROW_HEIGHT + BOTTOM;
  const { machine } = results;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ` +
      `${width} ${height}" role="img">`,
    `  <title>pgalloc against its peers</title>`,
    `  <style>${STYLE}\n  </style>`,
    `  <text class="title" x="12" y="24">How many times better than gVisor's Go (than fio where ` +
      "it says so)</text>",
    `  <line class="goal" x1="16" x2="16" y1="33" y2="47"/>`,
    `  <text x="24" y="44">is the goal: green reaches it, red does not. Medians of ` +
      `${results.rounds} pairs, images of ${formatBytes(results.bytes)}.</text>`,
    ...axis(low, high, x, height - BOTTOM),
    ...lines.flatMap((one, row) => bar(one, TOP + row * ROW_HEIGHT, x)),
    `  <text x="12" y="${height - 16}">${escapeXml(describeMachine(machine))}</text>`,
    "</svg>",
    "",
  ].join("\n");
}

function axis(low: number, high: number, x: (times: number) => number, bottom: number): string[] {
  const step = Math.ceil((high - low) / 10);
  const ticks = Array.from({ length: high - low + 1 }, (_, i) => low + i).filter(
    (power) => power % step === 0,
  );
  return ticks.flatMap((power) => {
    const label = power < 0 ? `1/${2 ** -power}×` : `${2 ** power}×`;
    const at = x(2 ** power).toFixed(1);
    return [
      `  <line class="${power === 0 ? "one" : "grid"}" x1="${at}" x2="${at}" y1="${TOP - 4}" ` +
        `y2="${bottom}"/>`,
      `  <text x="${at}" y="${TOP - 9}" text-anchor="middle">${label}</text>`,
    ];
  });
}

function bar(
  line: TargetLine & { ahead: { median: number } },
  top: number,
  x: (times: number) => number,
): string[] {
  const { ahead, isMet, neededAhead, work } = line;
  const from = Math.min(x(1), x(ahead.median));
  const to = Math.max(x(1), x(ahead.median));
  const kind = isMet ? "met" : "missed";
  const middle = top + ROW_HEIGHT / 2 + 4;
  const parts = [
    `  <text x="${LABEL_WIDTH - 10}" y="${middle}" text-anchor="end">${escapeXml(work)}</text>`,
    `  <rect class="${kind}" x="${from.toFixed(1)}" y="${top + 3}" ` +
      `width="${Math.max(1, to - from).toFixed(1)}" height="${ROW_HEIGHT - 6}" rx="2"/>`,
    `  <text x="${LABEL_WIDTH + PLOT_WIDTH + RIGHT_WIDTH - 12}" y="${middle}" ` +
      `text-anchor="end">${digits(ahead.median)}×</text>`,
  ];
  if (neededAhead !== undefined) {
    const at = x(neededAhead).toFixed(1);
    parts.push(
      `  <line class="goal" x1="${at}" x2="${at}" y1="${top + 1}" y2="${top + ROW_HEIGHT - 1}"/>`,
    );
  }
  return parts;
}

function escapeXml(text: string): string {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
