"use strict";

// Charts: the point of a line that the pointer is nearest to, with its values from the list beside the picture.
function nearest(svg, x, y) {
  let found = null;
  for (const [i, line] of svg.querySelectorAll(".line").entries()) {
    for (const [j, point] of [...line.points].entries()) {
      const far = Math.hypot(point.x - x, (point.y - y) / 3);
      if (!found || far < found.far) found = { far, line, point, i, j };
    }
  }
  return found && found.far < 30 ? found : null;
}

for (const values of document.querySelectorAll(".chart .plotted")) {
  const svg = values.parentElement.querySelector(".plot"), lines = JSON.parse(values.textContent);
  const tip = svg.appendChild(document.createElementNS(svg.namespaceURI, "g"));
  tip.style.display = "none";
  tip.innerHTML = '<circle r="4" class="near-point"/><text class="near-text"></text>';
  svg.addEventListener("pointermove", (event) => {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const found = nearest(svg, place.x, place.y);
    tip.style.display = found ? "" : "none";
    if (!found) return;
    const { line, point, i, j } = found, [dot, text] = tip.children;
    dot.setAttribute("cx", point.x);
    dot.setAttribute("cy", point.y);
    const left = point.x > svg.viewBox.baseVal.width / 2;
    text.setAttribute("x", point.x + (left ? -8 : 8));
    text.setAttribute("y", Math.max(14, point.y - 8));
    text.setAttribute("text-anchor", left ? "end" : "start");
    const [x, y] = lines[i].map((of) => of[j]);
    text.textContent = `${line.dataset.name}: ${x} → ${y}`;
  });
  svg.addEventListener("pointerleave", () => (tip.style.display = "none"));
}

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
