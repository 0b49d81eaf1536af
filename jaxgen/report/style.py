"""Holds the style (CSS) and the small script of a report; neither loads anything.

Without the script the report is still complete: the samples are a strip, and the curves have their axes.
"""

from __future__ import annotations

CSS = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #fff; --ink: #1c1e21; --soft: #5d636b;
  --rule: #e3e4e6; --accent: #1f5fd0; --faint: #1f5fd055; --warn: #b3261e; --warn-page: #fdf0ef; }
@media (prefers-color-scheme: dark) { :root { --page: #141517; --card: #1c1e21; --ink: #e8e9eb;
  --soft: #a2a8b0;
  --rule: #34373b; --accent: #86b0ff; --faint: #86b0ff55; --warn: #ff9d94; --warn-page: #33201f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 72rem; background: var(--page);
  color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { margin: 0; font-size: 2rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 3rem 0 .25rem; font-size: 1.35rem; }
h3 { margin: 1.5rem 0 .25rem; font-size: 1rem; }
p { margin: .25rem 0 .75rem; max-width: 46rem; }
a { color: var(--accent); }
.help, .kicker, small { color: var(--soft); font-size: .875rem; }
.kicker { margin: 0; }
.summary { font-size: 1.1rem; margin-top: .5rem; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin-top: 1.25rem; font-size: .95rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0; }
.fact, .chart, .panel, .card { background: var(--card); border: 1px solid var(--rule); border-radius: .5rem;
  padding: .75rem 1rem; margin: 0; min-width: 0; }
.fact b { display: block; font-size: 1.5rem; line-height: 1.3; font-weight: 650; }
.fact span { display: block; }
.fact.main { border-color: var(--accent); border-width: 2px; }
.notice { background: var(--warn-page); border-left: 4px solid var(--warn); padding: .5rem 1rem;
  border-radius: .25rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr));
  gap: .75rem; }
.chart figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; }
.chart b { overflow-wrap: anywhere; }
.chart output { color: var(--accent); font-variant-numeric: tabular-nums; margin-left: auto; }
.chart svg { display: block; width: 100%; height: auto; touch-action: pan-y; }
.chart .help { margin: .25rem 0 0; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
svg path { fill: none; vector-effect: non-scaling-stroke; }
.rule { stroke: var(--rule); } .axis { stroke: var(--soft); }
.raw { stroke: var(--faint); stroke-width: 1; }
.middle { stroke: var(--accent); stroke-width: 2; stroke-linejoin: round; }
.dot { fill: var(--accent); } svg .lost { fill: var(--warn); }
.cursor { stroke: var(--ink); stroke-width: 1; }
img { max-width: 100%; height: auto; display: block; border-radius: .25rem; }
.now img { margin: 0 auto; max-height: 80vh; width: auto; }
.now figcaption { text-align: center; margin-top: .5rem; }
.now { margin: 0; }
input[type=range] { width: 100%; accent-color: var(--accent); margin: .75rem 0 .25rem; }
.strip { display: flex; gap: .5rem; overflow-x: auto; padding: .25rem; }
.strip button { flex: none; width: 6rem; padding: .25rem; border: 2px solid transparent; border-radius: .5rem;
  background: none; color: inherit; font: inherit; font-size: .8rem; cursor: pointer; }
.strip button[aria-pressed=true] { border-color: var(--accent); }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr));
  gap: .75rem; }
.panel figcaption { margin-bottom: .5rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .4rem .75rem .4rem 0;
  border-bottom: 1px solid var(--rule);
  overflow-wrap: break-word; }
tr:last-child > * { border-bottom: 0; }
th { font-weight: 600; } th small { font-weight: 400; }
thead th { color: var(--soft); font-size: .875rem; font-weight: 500; }
.numbers td b { font-size: 1.1rem; }
.bar { display: block; height: .4rem; width: 7rem; max-width: 100%; background: var(--rule);
  border-radius: .2rem; }
.bar i { display: block; height: 100%; background: var(--accent); border-radius: .2rem; min-width: 2px; }
.tree details { margin: 0; } .tree summary { cursor: pointer; padding: .3rem 0; font-weight: 600; }
.tree .leaves { margin-left: 1.1rem; border-left: 2px solid var(--rule); padding-left: .75rem; }
.tree dl { margin: 0; display: grid; grid-template-columns: minmax(8rem, 16rem) 1fr; gap: .1rem 1rem; }
.tree dt { color: var(--soft); overflow-wrap: anywhere; }
.tree dd { margin: 0; overflow-wrap: anywhere; font-family: ui-monospace, Consolas, monospace;
  font-size: .9rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: .75rem; }
.pair h3 { margin-top: 0; } .pair th { width: 40%; color: var(--soft); font-weight: 400; }
.command { display: flex; gap: .75rem; align-items: start; margin-bottom: .75rem; }
pre { margin: 0; flex: 1; white-space: pre-wrap; overflow-wrap: anywhere;
  font: .9rem/1.5 ui-monospace, Consolas, monospace; }
.command button { font: inherit; font-size: .875rem; padding: .25rem .75rem; border: 1px solid var(--rule);
  border-radius: .375rem; background: var(--page); color: var(--ink); cursor: pointer; }
footer { margin-top: 3rem; border-top: 1px solid var(--rule); padding-top: 1rem; }
[hidden] { display: none !important; }
@media (max-width: 44rem) {
  h1 { font-size: 1.6rem; }
  .facts { grid-template-columns: 1fr 1fr; } .fact { padding: .5rem .75rem; } .fact b { font-size: 1.2rem; }
  .fact.main { grid-column: 1 / -1; }
  .stack thead { display: none; }
  .stack tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--rule); }
  .stack tr:last-child { border-bottom: 0; }
  .stack th, .stack td { display: block; border: 0; padding: .1rem 0; }
  .stack td[data-label]::before { content: attr(data-label) ": "; color: var(--soft); }
  .stack td:empty { display: none; }
  .tree dl { grid-template-columns: 1fr; } .tree dd { padding-left: 1rem; margin-bottom: .3rem; }
}
@media print {
  :root { --page: #fff; --card: #fff; --ink: #000; --soft: #444; --rule: #ccc; --accent: #1f5fd0;
    --faint: #1f5fd055; }
  body { max-width: none; padding: 0; font-size: 11pt; }
  nav, input[type=range], .command button { display: none; }
  .strip { flex-wrap: wrap; } .strip button[aria-pressed=true] { border-color: transparent; }
  .chart, .panel, .fact, tr, .now { break-inside: avoid; } h2, h3 { break-after: avoid; }
}
"""

SCRIPT = """
"use strict";
const strip = document.querySelector(".strip"), slider = document.querySelector("#through");
if (strip && slider) {
  const buttons = [...strip.querySelectorAll("button")], now = document.querySelector(".now");
  const show = (i) => {
    const small = buttons[i].querySelector("img"), large = now.querySelector("img");
    large.src = small.src; large.alt = small.alt;
    now.querySelector("figcaption").textContent = buttons[i].dataset.caption;
    slider.value = i; slider.setAttribute("aria-valuetext", buttons[i].dataset.caption);
    buttons.forEach((b, j) => b.setAttribute("aria-pressed", String(i === j)));
    const left = buttons[i].offsetLeft - strip.offsetLeft;
    strip.scrollLeft = left - (strip.clientWidth - buttons[i].clientWidth) / 2;
  };
  slider.hidden = false;
  slider.addEventListener("input", () => show(Number(slider.value)));
  buttons.forEach((b, i) => b.addEventListener("click", () => show(i)));
  show(buttons.length - 1);
}
for (const svg of document.querySelectorAll(".chart svg")) {
  const points = JSON.parse(svg.dataset.points), out = svg.parentNode.querySelector("output");
  const latest = out.textContent, box = svg.viewBox.baseVal;
  if (!points.length) continue;
  const mark = document.createElementNS("http://www.w3.org/2000/svg", "path");
  mark.setAttribute("class", "cursor");
  const clear = () => { mark.remove(); out.textContent = latest; };
  svg.addEventListener("pointermove", (event) => {
    const area = svg.getBoundingClientRect(), x = (event.clientX - area.left) / area.width * box.width;
    const p = points.reduce((a, b) => Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a);
    mark.setAttribute("d", `M${p[0]} 10V${box.height - 34}M${p[0] - 4} ${p[1]}h8`);
    svg.append(mark); out.textContent = p[2];
  });
  svg.addEventListener("pointerleave", clear);
  svg.addEventListener("pointercancel", clear);
}
for (const button of document.querySelectorAll(".command button")) {
  const text = button.parentNode.querySelector("pre");
  button.hidden = false;
  button.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(text.textContent); }
    catch { getSelection().selectAllChildren(text); document.execCommand("copy"); }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
"""
