/** Formats figures for people: the unit is in the figure's name. */
import { formatBytes } from "../../src/cli/bytes.ts";

export function formatFigure(figure: string, value: number): string {
  if (Number.isNaN(value)) return "none";
  if (figure === "times") return `${digits(value)}×`;
  if (/^gib/.test(figure)) return `${digits(value)} GiB/s`;
  if (/Seconds$/.test(figure)) return formatNs(value * 1e9);
  if (/Ms$/.test(figure)) return formatNs(value * 1e6);
  if (/Ns$|^(ns|cpuNs|firstNs)Per/.test(figure)) return formatNs(value);
  if (/Bytes$/.test(figure)) return formatBytes(value);
  return digits(value);
}

function formatNs(ns: number): string {
  if (ns >= 1e9) return `${digits(ns / 1e9)} s`;
  if (ns >= 1e6) return `${digits(ns / 1e6)} ms`;
  if (ns >= 1e3) return `${digits(ns / 1e3)} µs`;
  return `${digits(ns)} ns`;
}

/** Three significant digits; all digits of an integer. */
export function digits(value: number): string {
  return Math.abs(value) >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

export function formatParams(params: Readonly<Record<string, number | string>>): string {
  return Object.entries(params)
    .map(([name, value]) =>
      name === "bytes"
        ? formatBytes(value as number)
        : typeof value === "number"
          ? `${value.toLocaleString("en")} ${name}`
          : value,
    )
    .join(", ");
}
