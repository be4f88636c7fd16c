// The drawing: colors of what flows at the chosen token, and nodes that can be chosen.

import { largest, nodeKey, nodeOfKey, signed } from "./dom.js";
import { bring } from "./edges.js";

const SHOWN_NAME = 24; // characters of a name and its group
const LEGIBLE = 1000; // edges that are drawn at first; the lighter ones come with the slider

export class DrawingView {
  constructor(page) {
    Object.assign(this, page, { side: "circuit" });
    const { data } = page, svg = (this.svg = this.find("drawing").querySelector("svg"));
    svg.setAttribute("role", "group"); // its nodes can be chosen; a picture would hide them
    // A wide drawing shrinks to the page, but not below the size at which its labels can be read; then it scrolls.
    svg.style.minWidth = `${0.75 * svg.viewBox.baseVal.width}px`;
    svg.style.maxWidth = `${1.15 * svg.viewBox.baseVal.width}px`;
    svg.style.height = "auto";
    this.nodes = new Map();
    this.given = new Map(); // texts of the names below them
    for (const shape of svg.querySelectorAll(".node")) this.#wire(shape);
    this.wires = [...svg.querySelectorAll(".wire")];
    this.labels = [...svg.querySelectorAll(".weight")];
    this.embedding = [...this.wires, ...this.labels].filter((join) => join.dataset.from.startsWith("token:"));
    this.edges = new Map(data.record.edges.map((edge) => [`${nodeKey(edge.from)}|${nodeKey(edge.to)}`, edge]));
    const sizes = data.record.edges.map(({ weight }) => Math.abs(weight)).sort((a, b) => b - a);
    this.heaviest = sizes[0] || 1;
    const most = sizes.length > LEGIBLE ? sizes[LEGIBLE - 1] : 0; // the slider's steps are hundredths of the heaviest
    this.find("threshold").value = String(Math.ceil((100 * most) / this.heaviest) / 100);
    this.find("threshold").addEventListener("input", () => {
      this.#hideLight();
      this.show(this.view, this.state);
    });
    svg.addEventListener("pointerover", ({ target }) => target.classList.contains("wire") && this.#tell(target));
    this.find("side").addEventListener("change", (event) => {
      this.side = event.target.value;
      this.show(this.view, this.state);
    });
    this.#hideLight();
  }

  #wire(shape) {
    const key = shape.dataset.node;
    if (!this.data.keys.has(key)) return;
    this.nodes.set(key, shape);
    shape.setAttribute("tabindex", "0");
    shape.setAttribute("role", "button");
    shape.addEventListener("click", () => this.store.set({ node: key }));
    shape.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      this.store.set({ node: key });
    });
  }

  #hideLight() {
    const least = Number(this.find("threshold").value) * this.heaviest;
    this.find("threshold-value").textContent = least.toFixed(2);
    for (const join of [...this.wires, ...this.labels]) {
      const edge = this.edges.get(joinKey(join));
      join.classList.toggle("light", edge !== undefined && Math.abs(edge.weight) < least);
    }
    this.drawn = this.wires.filter((wire) => this.edges.has(joinKey(wire)) && !wire.classList.contains("light"));
  }

  // Values (T) of a node as the colors are to show them.
  values(view, key) {
    const { circuit, full } = view.nodes[key];
    return this.side === "difference" ? circuit.map((value, t) => value - full[t]) : { circuit, full }[this.side];
  }

  show(view, state) {
    if (!view) return;
    Object.assign(this, { view, state });
    const changed = new Set(state.changes.filter((change) => change.node).map((change) => nodeKey(change.node)));
    for (const [key, shape] of this.nodes) this.#showNode(key, shape, changed.has(key));
    const brought = this.drawn.map((wire) => this.#brings(wire)), most = largest(brought) || 1;
    this.drawn.forEach((wire, i) => {
      wire.style.stroke = brought[i] >= 0 ? "var(--strong-plus)" : "var(--strong-minus)";
      wire.style.opacity = String(0.16 + (0.84 * Math.abs(brought[i])) / most);
    });
    const token = `token:${view.tokens[view.position].id}`;
    for (const shape of this.svg.querySelectorAll(".node.token")) {
      shape.classList.toggle("terminal-active", shape.dataset.node === token);
    }
    if (state.node !== this.chosen) this.#reveal((this.chosen = state.node));
    for (const join of this.embedding) join.classList.toggle("elsewhere", join.dataset.from !== token);
  }

  // Scrolls the drawing, and not the page, to a node that was chosen elsewhere.
  #reveal(key) {
    const shape = this.nodes.get(key), frame = this.find("drawing");
    if (!shape) return;
    const place = shape.getBoundingClientRect(), seen = frame.getBoundingClientRect();
    if (place.top < seen.top || place.bottom > seen.bottom) frame.scrollTop += place.top - seen.top - seen.height / 2;
    if (place.left < seen.left || place.right > seen.right) frame.scrollLeft += place.left - seen.left - seen.width / 2;
  }

  #showNode(key, shape, changed) {
    const at = this.view.position, value = this.values(this.view, key)[at], { circuit, full } = this.view.nodes[key];
    const scale = largest(circuit, full), share = scale ? Math.min(1, Math.abs(value) / scale) : 0;
    const tone = value > 0 ? "var(--cell-plus)" : "var(--cell-minus)"; // the label on it stays readable
    shape.querySelector("rect").style.fill = `color-mix(in srgb, ${tone} ${Math.round(85 * share)}%, var(--paper))`;
    shape.classList.toggle("chosen", key === this.state.node);
    shape.classList.toggle("changed", changed);
    shape.setAttribute("aria-pressed", String(key === this.state.node));
    const values = `${signed(circuit[at])} in the circuit, ${signed(full[at])} in the model`;
    const told = `${this.name(nodeOfKey(key))}: ${values}${changed ? ", changed" : ""}`;
    shape.setAttribute("aria-label", told);
    shape.querySelector("title").textContent = told;
    this.#nameBelow(key, shape);
  }

  // The name that people gave below the node; without one its group's, in brackets.
  #nameBelow(key, shape) {
    const { labels, groups } = this.state.names, text = [labels[key], groups[key] && `[${groups[key]}]`].filter(Boolean).join(" ");
    let given = this.given.get(key);
    if (!given) {
      if (!text) return;
      const { x, y, width, height } = shape.querySelector("rect").getBBox();
      given = document.createElementNS(this.svg.namespaceURI, "text");
      given.setAttribute("class", "given");
      given.setAttribute("x", String(x + width / 2));
      given.setAttribute("y", String(y + height + 6));
      this.given.set(key, this.svg.appendChild(given));
    }
    given.textContent = text.length > SHOWN_NAME ? `${text.slice(0, SHOWN_NAME - 1)}…` : text;
  }

  #brings(wire) {
    const brings = (side) => bring(this.view, this.state, this.edges.get(joinKey(wire)), side, this.data.d_head);
    return this.side === "difference" ? brings("circuit") - brings("full") : brings(this.side);
  }

  #tell(wire) {
    const edge = this.edges.get(joinKey(wire));
    if (!edge) return;
    wire.querySelector("title").textContent = `weight ${signed(edge.weight)}, brings ${signed(this.#brings(wire))}`;
  }
}

function joinKey(join) {
  return `${join.dataset.from}|${join.dataset.to}`;
}
