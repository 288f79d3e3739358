/**
 * The start of a file in the browser: loaded bytes over time, and below them the slowest waits,
 * each as a bar in a lane of its own where they overlap, coloured by its cause.
 */

const CHART = { left: 72, right: 12, top: 10, plot: 120, lane: 10, axis: 22 };
const CAUSES = { range: "waits for a range", all: "waits for all", sync: "blocking waits" };

/** The distance of ticks: 1, 2 or 5 times a power of ten, for at most `most` of them. */
function tickStep(span, most) {
  const power = 10 ** Math.floor(Math.log10(span / most));
  return [1, 2, 5, 10].map((times) => times * power).find((step) => span / step <= most);
}

function formatMs(ms) {
  if (ms >= 10_000) return `${(ms / 1000).toFixed(0)} s`;
  return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${Number(ms.toFixed(1))} ms`;
}

/** Adds `lane` to each wait: the first lane that is free when it begins. */
function inLanes(awaits) {
  const ends = [];
  return awaits
    .map((one) => ({ ...one, beganMs: one.endedMs - one.waitMs }))
    .sort((a, b) => a.beganMs - b.beganMs)
    .map((one) => {
      const free = ends.findIndex((endMs) => endMs <= one.beganMs);
      const lane = free < 0 ? ends.length : free;
      ends[lane] = one.endedMs;
      return { ...one, lane };
    });
}

const element = (name, text) => Object.assign(document.createElement(name), { textContent: text });

function shape(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Draws the timeline. Hidden if nothing was loaded. */
function drawTimeline() {
  const [first] = data.progress;
  const last = data.progress.at(-1);
  $("timeline").hidden = first === undefined || last.totalBytes === 0;
  if ($("timeline").hidden) return;
  const waits = inLanes(last.awaits);
  const beganMs = Math.min(first.nowMs, ...waits.map((one) => one.beganMs));
  const spanMs = Math.max(1, last.nowMs - beganMs);
  const width = Math.max(320, $("chart").clientWidth);
  const lanes = Math.max(0, ...waits.map(({ lane }) => lane + 1));
  const bottom = CHART.top + CHART.plot + lanes * CHART.lane;
  const x = (ms) => CHART.left + ((ms - beganMs) / spanMs) * (width - CHART.left - CHART.right);
  const y = (share) => CHART.top + (1 - share) * CHART.plot;
  const shapes = [];
  for (const share of [0, 0.5, 1]) {
    const at = { x1: CHART.left, x2: width - CHART.right, y1: y(share), y2: y(share) };
    shapes.push(shape("line", { ...at, class: "grid" }));
    const label = { x: CHART.left - 8, y: y(share) + 4, "text-anchor": "end" };
    shapes.push(shape("text", label, formatBytes(share * last.totalBytes)));
  }
  const step = tickStep(spanMs, Math.max(2, Math.floor(width / 110)));
  for (let ms = 0; ms <= spanMs; ms += step) {
    const at = x(beganMs + ms);
    shapes.push(shape("line", { x1: at, x2: at, y1: CHART.top, y2: bottom, class: "grid" }));
    const anchor = ms === 0 ? "start" : ms > spanMs * 0.95 ? "end" : "middle";
    shapes.push(shape("text", { x: at, y: bottom + 16, "text-anchor": anchor }, formatMs(ms)));
  }
  for (const { beganMs: from, endedMs, lane, cause, waitMs, start, end } of waits) {
    const top = CHART.top + CHART.plot + lane * CHART.lane + 2;
    const bar = shape("rect", {
      ...{ x: x(from), y: top, height: CHART.lane - 3, class: `wait ${cause}` },
      width: Math.max(2, x(endedMs) - x(from)),
    });
    const text = `${CAUSES[cause] ?? cause}: ${formatMs(waitMs)} for [${start}, ${end})`;
    bar.append(shape("title", {}, text));
    shapes.push(bar);
  }
  const points = data.progress.map(
    (one) => `${x(one.nowMs).toFixed(1)},${y(one.loadedBytes / last.totalBytes).toFixed(1)}`,
  );
  shapes.push(shape("polyline", { points: points.join(" ") }));
  $("chart").setAttribute("viewBox", `0 0 ${width} ${bottom + CHART.axis}`);
  $("chart").style.height = `${bottom + CHART.axis}px`;
  $("chart").replaceChildren(...shapes);
  showCauses(last.awaits);
  showWaits(last.awaits, beganMs);
  const { loadedBytes, totalBytes } = last;
  $("progress").textContent = `${formatBytes(loadedBytes)} of ${formatBytes(totalBytes)} loaded`;
}

function showCauses(awaits) {
  const shown = Object.keys(CAUSES).filter((cause) => awaits.some((one) => one.cause === cause));
  const items = [["curve", "loaded"], ...shown.map((cause) => [`wait ${cause}`, CAUSES[cause]])];
  $("causes").replaceChildren(
    ...items.map(([kind, text]) => {
      const item = element("li", text);
      item.prepend(Object.assign(document.createElement("i"), { className: kind }));
      return item;
    }),
  );
}

/** The slowest waits as a table, the slowest first. */
function showWaits(awaits, beganMs) {
  $("waits").replaceChildren(
    ...awaits.map(({ waitMs, endedMs, cause, start, end }) => {
      const row = document.createElement("tr");
      const texts = [
        formatMs(endedMs - waitMs - beganMs),
        formatMs(waitMs),
        cause,
        formatBytes(end - start),
        `[${start}, ${end})`,
      ];
      row.append(...texts.map((text) => element("td", text)));
      return row;
    }),
  );
}
