// All nodes of the circuit, and what switching each off does to answer minus foil: computed when nothing else is.

import { button, element, nodeKey, nodeOfKey, replaceInside, SIDES, signed } from "./dom.js";
import { answerAndFoil } from "./predictions.js";

const AT_ONCE = 60; // nodes of circuits whose table is open from the start
const ROWS = 300; // nodes, the first by any order
const PAUSE = 400; // milliseconds between two looks of the growing table
const COLUMNS = { node: "node", circuit: "in the circuit", full: "in the full model" };

export class RankingView {
  constructor(page) {
    Object.assign(this, page, { found: new Map(), key: "", by: "circuit", drawn: 0 });
    this.details = this.find("ranking");
    this.details.open = page.ordered.length <= AT_ONCE;
    this.details.addEventListener("toggle", () => this.#start());
    this.head = element("tr", {}, ...Object.keys(COLUMNS).map((name) => this.#title(name)));
    this.body = element("tbody");
    this.find("ranking-table").append(element("thead", {}, this.head), this.body);
  }

  #title(name) {
    const sort = () => {
      this.by = name;
      this.#draw();
    };
    return element("th", { scope: "col", "data-by": name }, button(COLUMNS[name], sort, { class: "sort" }));
  }

  // What the effects depend on: another of it makes those that are known stale.
  asked(state) {
    const key = keyOf(state);
    if (key === this.key) return;
    this.key = key;
    this.found.clear();
    this.engine.forget("effects");
  }

  show(view, state) {
    Object.assign(this, { view, state });
    if (!this.found.size && !this.engine.wasAsked("effects")) this.#start();
    this.#draw();
  }

  #start() {
    if (!this.details.open || !this.view || this.found.size || this.state.answer === null) return;
    this.engine.does("effects", this.state, this.ordered.map(nodeOfKey));
    this.#draw();
  }

  // Effects of some nodes: the difference when one is off, minus that with it, of both sides.
  add(nodes, effects, state) {
    if (keyOf(state) !== this.key) return;
    effects.forEach(({ circuit, full }, i) => {
      const effect = { circuit: circuit.difference - circuit.before, full: full.difference - full.before };
      this.found.set(nodeKey(nodes[i]), effect);
    });
    if (this.found.size === this.ordered.length || performance.now() - this.drawn > PAUSE) this.#draw();
  }

  // Effects of all nodes, by key; null before all are known.
  get all() {
    return this.found.size === this.ordered.length ? this.found : null;
  }

  #draw() {
    this.drawn = performance.now();
    if (!this.view) return;
    const { found, ordered } = this, [answer, foil] = answerAndFoil(this.view, this.state);
    const { changes } = this.state, also = changes.length ? ` on top of your ${changes.length === 1 ? "change" : `${changes.length} changes`}` : "";
    const own = changes.some(({ node }) => node) ? ", a node’s own left aside" : "";
    const about = `Switched off at every token${also}${own}, ${answer} minus ${foil} changes by this much, after ${this.view.tokens[this.view.position].text}.`;
    const first = ordered.length > ROWS ? ` The first ${ROWS} are listed; the CSV file of nodes has all.` : "";
    const progress = this.all || !this.details.open ? first : ` ${found.size} of ${ordered.length} nodes computed.`;
    this.find("ranking-said").textContent = this.state.answer === null ? "There is no answer and no foil." : about + progress;
    for (const th of this.head.children) th.setAttribute("aria-sort", th.dataset.by !== this.by ? "none" : this.by === "node" ? "ascending" : "descending");
    if (!this.details.open) return;
    const effect = (key) => Math.abs(found.get(key)?.[this.by] ?? -1);
    const keys = this.by === "node" ? ordered : [...ordered].sort((a, b) => effect(b) - effect(a));
    replaceInside(this.body, this.active(), ...keys.slice(0, ROWS).map((key) => this.#row(key)));
  }

  #row(key) {
    const effects = this.found.get(key), choose = () => this.store.set({ node: key });
    const cell = (side) => element("td", { class: "number" }, effects ? signed(effects[side]) : "…");
    const name = button(this.name(nodeOfKey(key)), choose, { "data-key": key });
    return element("tr", { class: key === this.state.node ? "now" : "" }, element("td", {}, name), ...Object.keys(SIDES).map(cell));
  }
}

function keyOf({ prompt, twin, answer, foil, changes, position }) {
  return JSON.stringify([prompt, twin, answer, foil, changes, position]);
}
