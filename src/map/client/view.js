/** The page map in the browser: draws the cells of rows.js on a canvas, and follows the user. */

const $ = (id) => document.getElementById(id);
const canvas = $("map");
const context = canvas.getContext("2d");
const COLUMNS = 32;
const probe = document.body.appendChild(document.createElement("i"));

/** A colour of style.css, as the canvas takes it: resolved for light or dark. */
function colourOf(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

/** The colour of a shade: a CSS variable, or one made from a number. */
function paint(shade) {
  const number = /^(kind|group|refs) (\d+)$/.exec(shade);
  if (number === null) return colourOf(shade);
  const hue = (Number(number[2]) * 137.5 + 210) % 360;
  return `hsl(${hue} 55% 50%)`;
}

/** Cells of the current level: how many, which first, and where each is. */
function layout() {
  const width = canvas.clientWidth;
  if (view.level === "file") return layoutOfFile(width);
  const size = Math.max(8, Math.min(28, Math.floor(width / COLUMNS)));
  const first =
    view.level === "chunk" ? view.chunk * unitsPerChunk() : view.unit * data.model.unitPages;
  const total = view.level === "chunk" ? unitCount() : file().sizePages;
  const count = Math.min(
    view.level === "chunk" ? unitsPerChunk() : data.model.unitPages,
    total - first,
  );
  const rectOf = (index) => [(index % COLUMNS) * size, Math.floor(index / COLUMNS) * size, size];
  const cellAt = (x, y) => {
    const column = Math.floor(x / size);
    const index = Math.floor(y / size) * COLUMNS + column;
    return column < COLUMNS && index < count ? index : -1;
  };
  return {
    count,
    first,
    rectOf,
    cellAt,
    height: Math.ceil(count / COLUMNS) * size,
    columns: COLUMNS,
  };
}

function layoutOfFile(width) {
  const perChunk = unitsPerChunk();
  const chunks = Math.ceil(unitCount() / perChunk);
  const size = chunks <= 2 ? 12 : chunks <= 12 ? 8 : chunks <= 48 ? 6 : 4;
  const gap = 14;
  const block = { width: COLUMNS * size + gap, height: (perChunk / COLUMNS) * size + gap + 12 };
  const across = Math.max(1, Math.floor((width + gap) / block.width));
  const rectOf = (index) => {
    const chunk = Math.floor(index / perChunk);
    const inside = index % perChunk;
    const x = (chunk % across) * block.width + (inside % COLUMNS) * size;
    const y = Math.floor(chunk / across) * block.height + 12 + Math.floor(inside / COLUMNS) * size;
    return [x, y, size];
  };
  const cellAt = (x, y) => {
    const column = Math.floor((x % block.width) / size);
    const row = Math.floor(((y % block.height) - 12) / size);
    const chunk = Math.floor(y / block.height) * across + Math.floor(x / block.width);
    if (column >= COLUMNS || row < 0 || row >= perChunk / COLUMNS) return -1;
    if (Math.floor(x / block.width) >= across) return -1;
    const index = chunk * perChunk + row * COLUMNS + column;
    return index < unitCount() ? index : -1;
  };
  const height = Math.ceil(chunks / across) * block.height;
  return { count: unitCount(), first: 0, rectOf, cellAt, height, columns: COLUMNS, chunks };
}

function draw() {
  const cells = layout();
  const ratio = window.devicePixelRatio || 1;
  canvas.style.height = `${cells.height}px`;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = cells.height * ratio;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, canvas.clientWidth, cells.height);
  const colours = new Map();
  const cached = (shade) => {
    if (!colours.has(shade)) colours.set(shade, paint(shade));
    return colours.get(shade);
  };
  for (let index = 0; index < cells.count; index++) drawCell(cells, index, cached);
  if (view.level === "file") drawChunkLabels(cells);
  const [x, y, size] = cells.rectOf(Math.min(view.cell, cells.count - 1));
  context.strokeStyle = colourOf("focus");
  context.lineWidth = 2;
  context.strokeRect(x, y, size - 1, size - 1);
}

function drawCell(cells, index, colour) {
  const [x, y, size] = cells.rectOf(index);
  const inner = size > 4 ? size - 1 : size;
  if (view.level === "unit") {
    const page = cells.first + index;
    const mark = data.pageMarks === null ? 0 : data.pageMarks[index];
    const shade = shadeOf(rowAt(file().runs, page), page);
    context.fillStyle = colour(shade === "used" && mark > 0 ? LOAD_NAMES[mark] : shade);
    context.fillRect(x, y, inner, inner);
    return;
  }
  const unit = cells.first + index;
  // The shares of the unit's pages, from the bottom up.
  let bottom = y + inner;
  for (const [shade, pages] of data.units[unit] ?? []) {
    const height = (inner * pages) / data.model.unitPages;
    const isPending = markOf(unit) > 0 && !["free", "waste"].includes(shade);
    context.fillStyle = colour(isPending ? LOAD_NAMES[markOf(unit)] : shade);
    context.fillRect(x, bottom - height, inner, height);
    bottom -= height;
  }
}

function drawChunkLabels(cells) {
  context.fillStyle = colourOf("muted");
  context.font = "10px system-ui, sans-serif";
  for (let chunk = 0; chunk < cells.chunks; chunk++) {
    const [x, y] = cells.rectOf(chunk * unitsPerChunk());
    const huge = file().chunkHuge[chunk] ? ", huge pages" : "";
    context.fillText(`chunk ${chunk}${huge}`, x, y - 3);
  }
}

/** Numbered shades by their numbers, then the others by name. */
function byShade([one], [other]) {
  const isNumbered = (shade) => /\d$/.test(shade);
  if (isNumbered(one) !== isNumbered(other)) return isNumbered(one) ? -1 : 1;
  return one.localeCompare(other, undefined, { numeric: true });
}

function showLegend() {
  const totals = new Map();
  data.units.forEach((shades, unit) => {
    for (const [shade, pages] of shades) {
      const name = shade === "used" && markOf(unit) > 0 ? LOAD_NAMES[markOf(unit)] : shade;
      totals.set(name, (totals.get(name) ?? 0) + pages);
    }
  });
  $("legend").replaceChildren(
    ...[...totals].sort(byShade).map(([shade, pages]) => {
      const item = document.createElement("li");
      const colour = document.createElement("i");
      colour.style.background = paint(shade);
      item.append(colour, `${shade} ${formatBytes(pages * data.model.pageBytes)}`);
      return item;
    }),
  );
}

function showPath() {
  const parts = [
    ["file", `${file().name}, ${formatBytes(file().sizePages * data.model.pageBytes)}`],
  ];
  if (view.level !== "file") parts.push(["chunk", `chunk ${view.chunk}`]);
  if (view.level === "unit") parts.push(["unit", `unit ${view.unit}`]);
  $("path").replaceChildren(
    ...parts.map(([level, text]) => {
      const button = document.createElement("button");
      button.textContent = text;
      button.onclick = () => goTo(level);
      return button;
    }),
  );
}

function render() {
  showPath();
  showLegend();
  draw();
  $("status").textContent = describe(view.cell);
}

function select(index) {
  view.cell = Math.max(0, Math.min(layout().count - 1, index));
  draw();
  $("status").textContent = describe(view.cell);
}

async function goTo(level) {
  if (level === "unit" && data.model.isLive) await fetchPages();
  view.level = level;
  view.cell = 0;
  render();
}

async function zoomIn(index) {
  if (view.level === "file") {
    view.chunk = Math.floor(index / unitsPerChunk());
    await goTo("chunk");
    select(index % unitsPerChunk());
  } else if (view.level === "chunk") {
    view.unit = view.chunk * unitsPerChunk() + index;
    await goTo("unit");
  }
}

async function zoomOut() {
  if (view.level === "unit") {
    const cell = view.unit % unitsPerChunk();
    await goTo("chunk");
    select(cell);
  } else if (view.level === "chunk") {
    const cell = view.chunk * unitsPerChunk();
    await goTo("file");
    select(cell);
  }
}

const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

async function fetchPages() {
  const response = await fetch(`pages?file=${view.file}&unit=${view.unit}`);
  data.pageMarks = bytesOf(await response.text());
}

function cellOf(event) {
  const box = canvas.getBoundingClientRect();
  return layout().cellAt(event.clientX - box.left, event.clientY - box.top);
}

canvas.addEventListener("pointermove", (event) => {
  const index = cellOf(event);
  $("tip").hidden = index < 0;
  if (index < 0) return;
  $("tip").textContent = describe(index);
  $("tip").style.left = `${Math.min(event.pageX + 12, innerWidth - 340)}px`;
  $("tip").style.top = `${event.pageY + 16}px`;
});
canvas.addEventListener("pointerleave", () => {
  $("tip").hidden = true;
});
canvas.addEventListener("click", (event) => {
  const index = cellOf(event);
  if (index >= 0) void zoomIn(index);
});
canvas.addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -COLUMNS, ArrowDown: COLUMNS };
  const step = steps[event.key];
  if (step !== undefined) select(view.cell + step);
  else if (event.key === "Home") select(0);
  else if (event.key === "End") select(layout().count - 1);
  else if (event.key === "Enter") void zoomIn(view.cell);
  else if (event.key === "Escape" || event.key === "Backspace") void zoomOut();
  else return;
  event.preventDefault();
});
$("files").addEventListener("change", () => {
  view.file = Number($("files").value);
  summarize();
  void goTo("file");
});
$("colour").addEventListener("change", () => {
  view.colourBy = $("colour").value;
  summarize();
  render();
});
$("theme").addEventListener("click", () => {
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (isDark ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  render();
});
addEventListener("resize", () => {
  draw();
  drawTimeline();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);

async function receive(event) {
  const before = data.update;
  data.update = JSON.parse(event.data);
  if (before !== null && before.version !== data.update.version) {
    data.model = await (await fetch("model")).json();
    summarize();
  }
  const { units } = data.update.files[view.file];
  data.unitMarks = units === "" ? null : bytesOf(units);
  if (view.level === "unit") await fetchPages();
  data.progress.push({ nowMs: data.update.nowMs, ...data.update.files[view.file] });
  if (data.progress.length > 2000) data.progress.splice(1, 1000);
  drawTimeline();
  render();
  document.documentElement.dataset.updates = String(data.progress.length);
}

document.title = data.model.title;
$("title").textContent = data.model.title;
$("files").replaceChildren(...data.model.files.map(({ name }, index) => new Option(name, index)));
$("files").hidden = data.model.files.length < 2;
summarize();
render();
if (data.model.isLive) {
  const source = new EventSource("live");
  source.onmessage = (event) => void receive(event);
}
