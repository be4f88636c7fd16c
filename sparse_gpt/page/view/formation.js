// How the circuit came about: a slider over checkpoints that redraws circuit, curves and what each node did.

import { element, largest, nodeKey, signed, table, tint } from "./dom.js";

const SIZE = { width: 420, height: 170, left: 44, right: 12, top: 12, bottom: 26 };
const PALEST = 1.25; // size at which a correlation would have the full color, on which its number could not be read
const CHARTS = [
  {
    title: "Held-out task loss, nats",
    lines: { "full model": (c) => c.model_task_loss, "its circuit": (c) => c.circuit?.task_loss, "final circuit, then": (c) => c.final_circuit_task_loss },
  },
  { title: "Size of the circuit", lines: { nodes: (c) => c.circuit?.nodes.length, edges: (c) => c.circuit?.edges.length } },
  { title: "Overlap with the final circuit", lines: { nodes: (c) => c.circuit?.node_overlap, edges: (c) => c.circuit?.edge_overlap } },
];

export class FormationView {
  constructor({ data: { formation }, find, bare }) {
    if (!formation) return;
    Object.assign(this, { formation, find, bare, slider: find("checkpoint") });
    this.drawing = find("formation-drawing").querySelector("svg");
    this.last = formation.checkpoints.at(-1);
    this.final = partsOf(this.last.circuit);
    this.slider.max = String(formation.checkpoints.length - 1);
    this.slider.value = this.slider.max;
    this.slider.addEventListener("input", () => this.#show());
    const charts = CHARTS.map((chart) => this.#chart(chart));
    this.cursors = charts.map((svg) => svg.querySelector(".cursor"));
    find("formation-charts").replaceChildren(...charts.map((svg, i) => this.#figure(svg, CHARTS[i])));
    find("formation-nodes").replaceChildren(this.#nodes());
    this.#show();
  }

  #show() {
    const at = Number(this.slider.value), checkpoint = this.formation.checkpoints[at];
    const told = tell(checkpoint);
    this.find("checkpoint-told").textContent = told;
    this.slider.setAttribute("aria-valuetext", told);
    for (const cursor of this.cursors) cursor.setAttribute("transform", `translate(${this.#x(checkpoint)} 0)`);
    for (const cell of this.find("formation-nodes").querySelectorAll("[data-at]")) {
      cell.classList.toggle("now", cell.dataset.at === String(at));
    }
    this.#draw(partsOf(checkpoint.circuit));
  }

  // Nodes and edges of the chosen circuit are drawn in full, those only of the final one pale, all others not at all.
  #draw({ nodes, edges }) {
    for (const shape of this.drawing.querySelectorAll("[data-node]")) {
      const key = shape.dataset.node;
      if (/^(token|answer)/.test(key)) continue;
      mark(shape, nodes.has(key), this.final.nodes.has(key));
    }
    for (const join of this.drawing.querySelectorAll("[data-from]")) {
      const key = `${join.dataset.from}|${join.dataset.to}`;
      mark(join, edges.has(key), this.final.edges.has(key));
    }
    for (const link of this.drawing.querySelectorAll("[data-links]")) {
      const joins = (known) => link.dataset.links.split(" ").some((pair) => pair.split("|").every((end) => known.has(end)));
      mark(link, joins(nodes), joins(this.final.nodes));
    }
  }

  #x({ tokens }) {
    return SIZE.left + ((SIZE.width - SIZE.left - SIZE.right) * tokens) / this.last.tokens;
  }

  #chart({ title, lines }) {
    const values = Object.values(lines).flatMap((of) => this.formation.checkpoints.map(of));
    const top = largest(values.filter(Number.isFinite)) || 1, bottom = SIZE.height - SIZE.bottom;
    const y = (value) => bottom - ((bottom - SIZE.top) * value) / top;
    const parts = [0, 0.5, 1].flatMap((share) => [
      shape("path", { class: "rule", d: `M${SIZE.left} ${y(share * top)}H${SIZE.width - SIZE.right}` }),
      shape("text", { x: SIZE.left - 6, y: y(share * top) + 4, class: "tick end" }, short(share * top)),
    ]);
    for (const share of [0, 0.5, 1]) {
      const tokens = share * this.last.tokens;
      parts.push(shape("text", { x: this.#x({ tokens }), y: SIZE.height - 6, class: share < 1 ? "tick" : "tick end" }, short(tokens / 1e6)));
    }
    Object.values(lines).forEach((of, i) => {
      const known = this.formation.checkpoints.filter((each) => Number.isFinite(of(each)));
      const places = known.map((each) => `${this.#x(each).toFixed(1)} ${y(of(each)).toFixed(1)}`);
      parts.push(shape("path", { class: `line line-${i}`, d: places.length ? `M${places.join("L")}` : "" }));
      for (const each of known) parts.push(shape("circle", { class: `line-${i}`, cx: this.#x(each), cy: y(of(each)), r: 2.6 }));
    });
    parts.push(shape("path", { class: "cursor", d: `M0 ${SIZE.top}V${bottom}` }));
    const label = `${title}, by million tokens of training; the numbers are told beside the slider`;
    return shape("svg", { class: "chart", viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, role: "img", "aria-label": label }, ...parts);
  }

  #figure(svg, { title, lines }) {
    const keys = Object.keys(lines).map((name, i) => element("span", { class: `key line-${i}` }, name));
    return element("figure", {}, element("figcaption", {}, `${title} `, ...keys), svg);
  }

  #nodes() {
    const { checkpoints, nodes } = this.formation, circuits = checkpoints.map(({ circuit }) => partsOf(circuit).nodes);
    const rows = [...nodes].sort((a, b) => a.from_step - b.from_step).map((node) => {
      const place = [node.layer, node.site, node.channel], name = this.bare(place);
      const cells = node.correlation.map((value, at) => {
        const there = circuits[at].has(nodeKey(place)), about = there ? "in the circuit" : "not in the circuit";
        const text = element("span", {}, value === null ? "–" : signed(Math.round(100 * value) / 100));
        tint(text, value ?? 0, PALEST);
        const cell = element("td", { class: there ? "there" : "", title: about }, text);
        cell.dataset.at = String(at);
        return cell;
      });
      return element("tr", {}, element("th", { scope: "row" }, name), element("td", { class: "number" }, String(node.from_step)), ...cells);
    });
    const caption = element("caption", {}, "Nodes of the final circuit");
    return table(caption, ["node", "stays from step", ...checkpoints.map(({ step }) => String(step))], rows);
  }
}

function partsOf(circuit) {
  const ends = ({ from, to }) => `${nodeKey(from)}|${nodeKey(to)}`;
  return { nodes: new Set((circuit?.nodes ?? []).map(nodeKey)), edges: new Set((circuit?.edges ?? []).map(ends)) };
}

function mark(shape, present, final) {
  shape.classList.toggle("awaited", !present && final);
  shape.classList.toggle("absent", !present && !final);
}

function tell({ step, tokens, model_task_loss, solved, circuit }) {
  const start = `step ${step}, ${short(tokens / 1e6)} million tokens: model's loss ${short(model_task_loss)}`;
  if (!circuit) return `${start}; ${solved ? "no circuit reached the target" : "it does not do the task yet"}`;
  const { nodes, edges, task_loss, node_overlap } = circuit;
  return `${start}; circuit of ${nodes.length} nodes and ${edges.length} edges, loss ${short(task_loss)}, overlap ${short(node_overlap)}`;
}

function short(value) {
  return value === null ? "–" : value === 0 ? "0" : value >= 10 ? value.toFixed(0) : value.toPrecision(2);
}

function shape(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
