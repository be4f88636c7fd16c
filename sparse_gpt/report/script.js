"use strict";

// Charts: specs come as JSON; colors in them are the page's CSS variables, so that they follow light and dark.
const charts = [];

function resolved(value) {
  if (typeof value === "string" && value.startsWith("var(")) {
    return getComputedStyle(document.documentElement).getPropertyValue(value.slice(4, -1)).trim();
  }
  if (Array.isArray(value)) return value.map(resolved);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolved(item)]));
  }
  return value;
}

function drawChart({ place, spec }) {
  const { data, layout } = resolved(spec);
  const ink = resolved("var(--ink)"), hair = resolved("var(--hair)"), faint = resolved("var(--faint)");
  layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
  layout.font = { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink };
  layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: faint, activecolor: ink };
  layout.hoverlabel = { bgcolor: resolved("var(--paper)"), bordercolor: faint, font: { color: ink } };
  for (const axis of [layout.xaxis, layout.yaxis]) {
    Object.assign(axis, { gridcolor: hair, zeroline: false, linecolor: faint, showline: true, automargin: true });
    Object.assign(axis.title, { font: { size: 12, color: faint } });
  }
  const wide = place.closest(".chart").classList.contains("wide");
  const bar = { displayModeBar: wide ? "hover" : false, modeBarButtons: [["toImage", "resetScale2d"]] }; // these work offline
  Plotly.react(place, data, layout, { displaylogo: false, responsive: true, ...bar });
}

function isFolded({ place }) {
  return Boolean(place.closest("details:not([open])"));
}

for (const place of document.querySelectorAll(".plot")) {
  const chart = { place, spec: JSON.parse(place.querySelector("script").textContent) };
  place.textContent = "";
  charts.push(chart);
  if (!isFolded(chart)) drawChart(chart);
}
// Plotly cannot measure what is folded away: that is drawn when it opens.
for (const details of document.querySelectorAll("details")) {
  details.addEventListener("toggle", () => {
    if (details.open) charts.filter((chart) => details.contains(chart.place)).forEach(drawChart);
  });
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  charts.filter((chart) => !isFolded(chart)).forEach(drawChart);
});

// Circuits: highlighting in the drawing, and the node browser below it.
function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function highlight(svg, key) {
  svg.classList.toggle("focused", Boolean(key));
  const near = new Set([key]);
  const joins = [...svg.querySelectorAll(".wire, .weight, .link, .pair")];
  for (const join of joins) {
    const pairs = join.dataset.links ? join.dataset.links.split(" ").map((pair) => pair.split("|"))
      : [[join.dataset.from, join.dataset.to]];
    const mine = pairs.filter((pair) => pair.includes(key));
    join.classList.toggle("near", mine.length > 0);
    mine.flat().forEach((end) => near.add(end));
  }
  for (const node of svg.querySelectorAll("[data-node]")) node.classList.toggle("near", near.has(node.dataset.node));
}

function describe(data, key) {
  const node = data.nodes.find((one) => one.key === key);
  if (!node) return data.terminals[key] ?? "";
  return [node.title, node.edges.join(", "), node.responds && `strongest on ${node.responds}`].filter(Boolean).join(" · ");
}

function span(token, value, scale) {
  const made = element("span", "token", token);
  if (value === null || value === undefined) return made;
  const share = scale ? Math.abs(value) / scale : 0;
  if (share > 0.01) {
    made.classList.add(value > 0 ? "plus" : "minus");
    made.style.setProperty("--share", `${Math.round(100 * share)}%`);
  }
  made.title = `${token.trim()}  ${Number(value.toPrecision(3))}`;
  return made;
}

function sampleElement(sample, values, scale) {
  const made = element("div", "sample");
  const text = element("p", "prompt");
  // Lines break where the code's do: ↵ stands for the newline.
  sample.tokens.forEach((token, i) => text.append(span(token.replaceAll("↵", "↵\n"), values[i], scale)));
  const about = element("p", "about");
  about.append("→ ", element("b", "", sample.answer), " rather than ", element("b", "", sample.foil));
  about.append(` · logit difference: circuit ${sample.circuit}, full model ${sample.full}`);
  if (sample.split) about.append(` · ${sample.split}`);
  made.append(text, about);
  return made;
}

function showNode(root, data, key) {
  const node = data.nodes.find((one) => one.key === key);
  const browser = root.querySelector(".browser");
  for (const mark of root.querySelectorAll("[data-node]")) mark.classList.toggle("chosen", mark.dataset.node === key);
  if (!node || !browser) return;
  const scale = Math.max(0, ...node.values.flat().map((value) => Math.abs(value ?? 0)));
  browser.querySelector(".node-choice").value = key;
  browser.querySelector(".node-about").textContent = describe(data, key);
  const bound = Number(scale.toPrecision(3));
  browser.querySelector(".ramp").replaceChildren(`−${bound}`, element("i"), `+${bound}`);
  const rows = [];
  for (let i = 0; i < data.samples.length; i += 2) {
    const row = element("div", "pair-of-samples");
    for (const j of [i, i + 1]) {
      if (data.samples[j]) row.append(sampleElement(data.samples[j], node.values[j], scale));
    }
    rows.push(row);
  }
  browser.querySelector(".samples").replaceChildren(...rows);
}

// The drawing as a file of its own: without what this page added to it.
function save(svg, name) {
  const copy = svg.cloneNode(true);
  copy.removeAttribute("style");
  for (const mark of copy.querySelectorAll(".node")) mark.classList.remove("chosen", "near");
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" }));
  link.download = `${name}.svg`;
  link.click();
  URL.revokeObjectURL(link.href);
}

function connectBrowser(root, data, show) {
  const choice = root.querySelector(".node-choice");
  if (!choice) return;
  for (const node of data.nodes) {
    const option = element("option", "", node.name);
    option.value = node.key;
    choice.append(option);
  }
  choice.addEventListener("change", () => show(choice.value));
  const step = (by) => show(data.nodes[(choice.selectedIndex + by + data.nodes.length) % data.nodes.length].key);
  root.querySelector(".previous").addEventListener("click", () => step(-1));
  root.querySelector(".next").addEventListener("click", () => step(1));
}

for (const root of document.querySelectorAll(".circuit")) {
  const data = JSON.parse(root.querySelector(".circuit-data").textContent);
  const svg = root.querySelector(".circuit-drawing");
  const detail = root.querySelector(".detail");
  const show = (key) => showNode(root, data, key);
  const focus = (key) => {
    highlight(svg, key);
    detail.textContent = key ? describe(data, key) : "\u00a0";
  };
  const isNode = new Set(data.nodes.map((node) => node.key));
  for (const node of svg.querySelectorAll(".node")) {
    node.addEventListener("pointerenter", () => focus(node.dataset.node));
    node.addEventListener("pointerleave", () => focus(null));
    if (!isNode.has(node.dataset.node)) continue;
    node.setAttribute("tabindex", "0");
    node.setAttribute("role", "button");
    node.addEventListener("focus", () => focus(node.dataset.node));
    node.addEventListener("blur", () => focus(null));
    node.addEventListener("click", () => show(node.dataset.node));
    node.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        show(node.dataset.node);
      }
    });
  }
  for (const row of root.querySelectorAll(".grid .row")) row.addEventListener("click", () => show(row.dataset.node));
  root.querySelector(".save").addEventListener("click", () => save(svg, root.closest("section").id));
  // A wide drawing shrinks to the page, but not below the size at which its labels can be read; then it scrolls.
  svg.style.minWidth = `${0.75 * svg.viewBox.baseVal.width}px`;
  svg.style.maxWidth = `${1.15 * svg.viewBox.baseVal.width}px`;
  connectBrowser(root, data, show);
  if (data.first) show(data.first);
}
