/**
 * The page map's data in the browser: which runs and contents a cell has, and how it reads as text.
 * view.js draws it. Both are plain scripts of one page, which must be a single file.
 */

/** The colours that style.css defines, by the contents of a cell. */
const LOAD_NAMES = ["loaded", "pending", "failed"];

/** What the page shows; `units` has the pages of each unit by shade. */
const data = {
  model: JSON.parse(document.getElementById("model").textContent),
  update: null,
  units: [],
  unitMarks: null,
  pageMarks: null,
  progress: [],
};
const view = { file: 0, level: "file", chunk: 0, unit: 0, cell: 0, colourBy: "state" };

const file = () => data.model.files[view.file];
const unitCount = () => Math.ceil(file().sizePages / data.model.unitPages);
const unitsPerChunk = () => data.model.chunkPages / data.model.unitPages;

function formatBytes(bytes) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; bytes >= 1024 && unit < units.length - 1; unit++) bytes /= 1024;
  return `${bytes.toFixed(1).replace(/\.0$/, "")} ${units[unit]}`;
}

/** The row of ordered, disjoint rows that holds `page`, or -1. */
function rowAt(rows, page) {
  let low = 0;
  let high = rows.start.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows.start[middle] + rows.length[middle] > page) high = middle;
    else low = middle + 1;
  }
  return low < rows.start.length && rows.start[low] <= page ? low : -1;
}

/** What a page is, by the choice of colours: a name that CSS or `paint` knows. */
function shadeOf(row, page) {
  const { runs, extents } = file();
  if (row < 0) return "free";
  const state = data.model.states[runs.state[row]];
  if (view.colourBy === "kind") return state === "used" ? `kind ${runs.kind[row]}` : state;
  if (view.colourBy === "group") return state === "used" ? `group ${runs.group[row]}` : state;
  if (view.colourBy === "refs") return state === "used" ? `refs ${runs.refs[row]}` : state;
  if (state === "used" && extents !== null && rowAt(extents, page) < 0) return "zero";
  return state;
}

/** Pages by shade, for each unit: one pass over the runs. */
function summarize() {
  const { runs, sizePages, extents } = file();
  const summaries = Array.from({ length: unitCount() }, () => new Map());
  const add = (start, end, shade) => {
    for (let page = start; page < end; ) {
      const unit = Math.floor(page / data.model.unitPages);
      const to = Math.min(end, (unit + 1) * data.model.unitPages);
      const shades = summaries[unit];
      shades.set(shade, (shades.get(shade) ?? 0) + to - page);
      page = to;
    }
  };
  let done = 0;
  for (let row = 0; row < runs.start.length; row++) {
    const start = runs.start[row];
    const end = start + runs.length[row];
    add(done, start, "free");
    const shade = shadeOf(row, start);
    const isStored = extents !== null && (shade === "used" || shade === "zero");
    if (isStored) addStored(start, end, add);
    else add(start, end, shade);
    done = end;
  }
  add(done, sizePages, "free");
  data.units = summaries;
}

/** Used pages [start, end) of a checkpoint: those with contents, and those of zeros. */
function addStored(start, end, add) {
  const { extents } = file();
  let page = start;
  let low = 0;
  let high = extents.start.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (extents.start[middle] + extents.length[middle] > start) high = middle;
    else low = middle + 1;
  }
  for (let row = low; row < extents.start.length && extents.start[row] < end; row++) {
    const from = Math.max(page, extents.start[row]);
    const to = Math.min(end, extents.start[row] + extents.length[row]);
    add(page, from, "zero");
    add(from, to, "used");
    page = to;
  }
  add(page, end, "zero");
}

function markOf(unit) {
  return data.unitMarks === null ? 0 : data.unitMarks[unit];
}

/** The text of a cell: its range, and what is in it. */
function describe(index) {
  const cells = layout();
  const pageLevel = view.level === "unit";
  const pagesPerCell = pageLevel ? 1 : data.model.unitPages;
  const start = (cells.first + index) * pagesPerCell;
  const end = Math.min(file().sizePages, start + pagesPerCell);
  const range = `[${start * data.model.pageBytes}, ${end * data.model.pageBytes})`;
  if (pageLevel) return `page ${start} ${range}: ${describePage(start, index)}`;
  const unit = cells.first + index;
  const shades = [...(data.units[unit] ?? [])].map(
    ([shade, pages]) => `${formatBytes(pages * data.model.pageBytes)} ${shade}`,
  );
  const mark = markOf(unit) > 0 ? ` (${LOAD_NAMES[markOf(unit)]})` : "";
  return `unit ${unit} ${range}: ${shades.join(", ")}${mark}`;
}

function describePage(page, index) {
  const { runs, extents } = file();
  const row = rowAt(runs, page);
  if (row < 0) return "free";
  const parts = [data.model.states[runs.state[row]]];
  if (data.pageMarks !== null && data.pageMarks[index] > 0)
    parts.push(LOAD_NAMES[data.pageMarks[index]]);
  if (parts[0] === "used") {
    const kind = data.model.kinds[runs.kind[row]] ?? runs.kind[row];
    parts.push(`kind ${kind}`, `group ${runs.group[row]}`);
    parts.push(runs.refs[row] === 1 ? "1 reference" : `${runs.refs[row]} references`);
  }
  const stored = extents === null ? -1 : rowAt(extents, page);
  if (stored >= 0) {
    const place = `${data.model.contents[extents.content[stored]]} at ${extents.offset[stored]}`;
    parts.push(`${data.model.codecs[extents.codec[stored]]} frame in ${place}`);
  } else if (extents !== null && parts[0] === "used") parts.push("zeros");
  return parts.join(", ");
}
