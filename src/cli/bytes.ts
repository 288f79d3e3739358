/** Formats sizes for people. */

const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB"];

/** "512 bytes", "1.5 KiB", "1 GiB": at most one decimal, and none if it is 0. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = value.toFixed(1).replace(/\.0$/, "");
  return `${digits} ${unit === 0 && bytes === 1 ? "byte" : UNITS[unit]}`;
}
