/** The page map as one self-contained HTML document. Only a live map's page makes requests. */
import rows from "./client/rows.js" with { type: "text" };
import timeline from "./client/timeline.js" with { type: "text" };
import view from "./client/view.js" with { type: "text" };
import type { MapModel } from "./model.ts";
import style from "./style.css" with { type: "text" };

/** In a script element only `</script` and `<!--` must not appear. JSON may escape any `<`. */
function embed(model: MapModel): string {
  return JSON.stringify(model).replace(/</g, "\\u003c");
}

function escapeHtml(text: string): string {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
}

const TIMELINE = `<section id="timeline" hidden>
  <h2 id="progress"></h2>
  <ul id="causes" class="key"></ul>
  <svg id="chart" role="img"
    aria-label="Loaded bytes over time; bars are the slowest waits, listed below"></svg>
  <table>
    <caption>The slowest waits</caption>
    <thead><tr><th>began</th><th>waited</th><th>cause</th><th>bytes</th><th>range</th></tr></thead>
    <tbody id="waits"></tbody>
  </table>
</section>`;

export function renderPage(model: MapModel): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(model.title)}</title>
<link rel="icon" href="data:,">
<style>
${style}</style>
</head>
<body>
<header>
  <h1 id="title"></h1>
  <select id="files" aria-label="file"></select>
  <label>colour by
    <select id="colour">
      <option value="state">state</option>
      <option value="kind">kind</option>
      <option value="group">group</option>
      <option value="refs">references</option>
    </select>
  </label>
  <button id="theme" type="button">dark or light</button>
</header>
<nav id="path" aria-label="zoom"></nav>
<ul id="legend" class="key"></ul>
<canvas id="map" tabindex="0" role="application" aria-describedby="status"
  aria-label="Map of pages: arrows select, Enter zooms in, Escape zooms out"></canvas>
<p id="status" role="status"></p>
${TIMELINE}
<div id="tip" role="tooltip" hidden></div>
<script id="model" type="application/json">${embed(model)}</script>
<script>
${rows}</script>
<script>
${timeline}</script>
<script>
${view}</script>
</body>
</html>
`;
}
