"""Style and script of report.html, as text: the report stays one file, and its CSP names their hashes."""

from __future__ import annotations

STYLE = """
:root {
  --bg: #fbfbf9; --card: #fff; --ink: #22252b; --soft: #666c78; --line: #e6e6e1; --accent: #3f6ea8; --bar: #a9bfdc;
  --track: #eeeeea; --high: #b3392f; --medium: #a8690a; --low: #64708a; --high-bg: #fbe9e6; --medium-bg: #fbf0dc;
  --low-bg: #edeff4; --arc: #8fa3bd; color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root {
    --bg: #15171b; --card: #1d2026; --ink: #e4e6ea; --soft: #9aa1ae; --line: #2d3139; --accent: #8db4e6;
    --bar: #4d6d97; --track: #292d35; --high: #f0897e; --medium: #e0ae5c; --low: #a3aec4; --high-bg: #40231f;
    --medium-bg: #3b2f19; --low-bg: #2a2f3a; --arc: #62748d;
  }
}
* { box-sizing: border-box }
body {
  margin: 0; background: var(--bg); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  -webkit-text-size-adjust: 100%;
}
main { max-width: 1120px; margin: 0 auto; padding: 28px 24px 64px }
h1 { font-size: 26px; line-height: 1.25; margin: 0; font-weight: 650; overflow-wrap: anywhere }
h2 { font-size: 17px; margin: 0 0 14px; font-weight: 650 }
h3 { font-size: 14px; margin: 22px 0 8px; font-weight: 600; color: var(--soft) }
p { margin: 0 0 10px }
.soft { color: var(--soft) }
.small { font-size: 13px }
code, .mono {
  font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere;
}
header { margin-bottom: 22px }
section {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px 22px; margin: 18px 0;
}
.two { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 0 18px; align-items: start }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 13px 16px }
.tile b { display: block; font-size: 25px; line-height: 1.2; font-weight: 650; font-variant-numeric: tabular-nums }
.tile span { color: var(--soft); font-size: 13px }
.sev-high { color: var(--high) }
.sev-medium { color: var(--medium) }
.sev-low { color: var(--low) }
svg { display: block }
.stack { width: 100%; height: 14px; border-radius: 7px; margin: 2px 0 10px; background: var(--track) }
.fill-high { fill: var(--high) }
.fill-medium { fill: var(--medium) }
.fill-low { fill: var(--low) }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 14px; margin: 0 0 4px }
.chip {
  display: inline-block; border-radius: 20px; padding: 0 9px; font-size: 12px; line-height: 20px; font-weight: 600;
  white-space: nowrap;
}
.chip.high { color: var(--high); background: var(--high-bg) }
.chip.medium { color: var(--medium); background: var(--medium-bg) }
.chip.low { color: var(--low); background: var(--low-bg) }
.bars { display: grid; gap: 9px }
.bar-row { display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: 1px 12px; font-size: 14px }
.bar-row>span:first-child { overflow-wrap: anywhere }
.bar-row .n { font-variant-numeric: tabular-nums; color: var(--soft) }
.bar-row svg { grid-column: 1/-1; width: 100%; height: 7px }
.bar-row .track { fill: var(--track) }
.bar-row .bar { fill: var(--bar) }
.bar-row .bar.hot { fill: var(--high) }
.filters { display: flex; flex-wrap: wrap; gap: 10px 16px; align-items: center; margin: 0 0 14px }
.filters[hidden] { display: none }
.filters input[type=search] {
  flex: 1 1 220px; min-width: 0; font: inherit; padding: 7px 12px; border: 1px solid var(--line); border-radius: 8px;
  background: var(--bg); color: inherit;
}
.filters label { display: inline-flex; gap: 6px; align-items: center; font-size: 14px }
details.file { border-top: 1px solid var(--line) }
details.file[hidden], tr[hidden] { display: none }
summary { cursor: pointer; padding: 8px 0 }
summary::marker { color: var(--soft) }
summary .mono { font-weight: 600; margin-right: 8px }
table { border-collapse: collapse; width: 100%; font-size: 14px }
td, th { padding: 5px 12px 5px 0; vertical-align: top; text-align: left }
th { font-weight: 600; color: var(--soft); font-size: 13px; border-bottom: 1px solid var(--line) }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.f { table-layout: fixed; margin: 0 0 8px }
.f td:nth-child(1) { width: 86px }
.f td:nth-child(2) { width: 74px; color: var(--soft) }
.f td:nth-child(3) { width: 168px; overflow-wrap: anywhere }
.f td:nth-child(4) { overflow-wrap: anywhere }
.diagram { width: 100%; max-width: 560px; margin: 0 auto; height: auto }
.diagram text { font: 11.5px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: var(--ink) }
.diagram circle { fill: var(--accent) }
.diagram .cyc circle { fill: var(--high) }
.diagram .cyc text { fill: var(--high) }
.diagram path { fill: none; stroke: var(--arc); stroke-opacity: .42 }
.diagram path.back { stroke: var(--high); stroke-opacity: .5 }
.diagram.lit path { stroke-opacity: .05 }
.diagram.lit path.on { stroke-opacity: .95 }
.key {
  display: flex; flex-wrap: wrap; gap: 4px 16px; justify-content: center; font-size: 13px; color: var(--soft);
  margin-top: 12px;
}
.cycle { border-top: 1px solid var(--line); padding: 9px 0 }
.cycle:first-of-type { border-top: 0 }
.empty { color: var(--soft) }
footer { color: var(--soft); font-size: 13px; margin-top: 26px }
ul.plain { list-style: none; margin: 0; padding: 0 }
ul.plain li { padding: 3px 0; overflow-wrap: anywhere }
@media (max-width: 820px) {
  .two { grid-template-columns: minmax(0, 1fr) }
}
@media (max-width: 620px) {
  main { padding: 18px 12px 40px }
  section { padding: 16px 14px; margin: 12px 0 }
  h1 { font-size: 22px }
  .tiles { grid-template-columns: 1fr 1fr; gap: 8px }
  .tile { padding: 10px 12px }
  .tile b { font-size: 21px }
  .two { gap: 0 }
  .f, .f tbody, .f tr { display: block; width: 100% }
  .f tr { padding: 6px 0; border-top: 1px dotted var(--line) }
  .f tr[hidden] { display: none }
  .f td, .f td:nth-child(n) { display: inline; width: auto; padding: 0 8px 0 0 }
  .f td:nth-child(4) { display: block; padding: 1px 0 0 }
}
@media print {
  .filters { display: none }
  section, .tile { break-inside: avoid }
}
"""

SCRIPT = """
"use strict";
(() => {
  const box = document.querySelector(".filters");
  if (box) {
    box.hidden = false;
    const text = box.querySelector("input[type=search]");
    const checks = [...box.querySelectorAll("input[type=checkbox]")];
    const shown = box.querySelector("output");
    const groups = [...document.querySelectorAll("details.file")].map((group) => ({
      group, open: group.open, path: group.dataset.path.toLowerCase(),
      rows: [...group.querySelectorAll("tr")].map(
        (row) => ({row, severity: row.dataset.s, text: row.textContent.toLowerCase()})),
    }));
    let waiting = 0;
    const apply = () => {
      const words = text.value.toLowerCase().split(" ").filter(Boolean);
      const wanted = new Set(checks.filter((check) => check.checked).map((check) => check.value));
      let count = 0;
      for (const item of groups) {
        let left = 0;
        for (const row of item.rows) {
          const fits = wanted.has(row.severity)
            && words.every((word) => row.text.includes(word) || item.path.includes(word));
          row.row.hidden = !fits;
          left += fits;
        }
        item.group.hidden = left === 0;
        item.group.open = words.length ? left > 0 && left <= 50 : item.open;
        count += left;
      }
      shown.textContent = count.toLocaleString("en") + " shown";
    };
    const later = () => { clearTimeout(waiting); waiting = setTimeout(apply, 120); };
    text.addEventListener("input", later);
    checks.forEach((check) => check.addEventListener("change", later));
    apply();
  }
  const diagram = document.querySelector("svg.diagram");
  if (diagram) {
    const arcs = [...diagram.querySelectorAll("path")];
    const light = (row) => {
      diagram.classList.toggle("lit", row !== undefined);
      arcs.forEach((arc) => arc.classList.toggle("on", arc.dataset.a === row || arc.dataset.b === row));
    };
    diagram.querySelectorAll(".node").forEach((node) => {
      node.addEventListener("pointerenter", () => light(node.dataset.row));
      node.addEventListener("pointerleave", () => light(undefined));
    });
  }
})();
"""
