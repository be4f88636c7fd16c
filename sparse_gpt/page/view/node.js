// The chosen node: its values over tokens, what it does, its edges, and where it is strongest.

import { button, element, largest, nodeKey, nodeOfKey, replaceInside, SIDES, signed, table, takesText, tint, tokenSpan } from "./dom.js";
import { Controls } from "./controls.js";
import { bring, isOf } from "./edges.js";
import { answerAndFoil } from "./predictions.js";

const OPTIONS = 500; // nodes in the list; the search finds the others

export class NodeView {
  constructor(page) {
    Object.assign(this, page, { view: null, without: null });
    const { store } = page, select = this.find("node"), find = this.find("find");
    this.controls = new Controls(page);
    this.#fillList("");
    select.addEventListener("change", () => store.set({ node: select.value || null }));
    find.addEventListener("input", () => this.#fillList(find.value));
    find.addEventListener("keydown", ({ key }) => {
      if (key !== "Enter" || !this.hits.length) return;
      store.set({ node: this.hits[0] });
      this.find("node-panel").scrollIntoView({ block: "nearest" });
    });
    this.keys.addEventListener("keydown", (event) => {
      if (takesText(event.target) || event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey) return;
      const by = { n: 1, p: -1 }[event.key.toLowerCase()];
      if (by) this.#step(by);
      else if (event.key.toLowerCase() === "o") this.controls.switch();
    });
    this.#build();
  }

  // The list of nodes, of those whose names have a text in them; the chosen one stays.
  #fillList(text) {
    const wanted = text.trim().toLowerCase(), chosen = this.store.state.node;
    const isHit = (key) => this.name(nodeOfKey(key)).toLowerCase().includes(wanted);
    this.hits = wanted ? this.ordered.filter(isHit) : [];
    const found = (wanted ? this.ordered.filter((key) => key === chosen || isHit(key)) : this.ordered).slice(0, OPTIONS);
    const none = element("option", { value: "" }, wanted ? `none (${this.hits.length} found)` : "none");
    this.find("node").replaceChildren(none, ...found.map((key) => element("option", { value: key }, this.name(nodeOfKey(key)))));
    this.find("node").value = chosen ?? "";
  }

  #step(by) {
    if (!this.ordered.length) return;
    const keys = this.ordered, at = keys.indexOf(this.store.state.node);
    this.store.set({ node: keys[(at + by + keys.length + (at < 0 && by < 0 ? 1 : 0)) % keys.length] });
  }

  #build() {
    this.about = element("p", { class: "node-about", "aria-live": "polite" });
    this.strips = element("div");
    this.effect = element("div");
    this.edges = element("div", { class: "scroll edges" });
    this.contexts = element("details", { class: "contexts" });
    this.panel = element("div", {}, this.about, this.strips, this.controls.element, this.effect, this.edges, this.contexts);
  }

  show(view, state) {
    Object.assign(this, { view, state });
    this.find("node").value = state.node ?? "";
    if (this.find("node").selectedIndex < 0) this.#fillList(this.find("find").value);
    if (!state.node) {
      const how = "Choose a node: click it in the drawing, pick it from the list, or press N.";
      this.controls.show(view, null);
      this.find("node-panel").replaceChildren(element("p", { class: "faint" }, how));
      return;
    }
    if (!this.panel.isConnected) this.find("node-panel").replaceChildren(this.panel);
    if (this.key !== state.node) this.without = null;
    this.key = state.node;
    this.#showAbout();
    this.#showEffect();
    this.#showStrips();
    this.controls.show(view, this.key);
    this.#showEdges(state);
    this.#showContexts();
  }

  // What the logit difference is when the node is off: arrives later, for it takes passes of its own.
  showWithout(without) {
    this.without = without;
    if (this.view && this.key) this.#showEffect();
  }

  #showAbout() {
    const { circuit, full, off } = this.view.nodes[this.key], at = this.view.position;
    const name = element("b", {}, this.name(nodeOfKey(this.key)));
    const values = `in the circuit ${signed(circuit[at])}, in the full model ${signed(full[at])}`;
    this.about.replaceChildren(name, ` at token ${at}: ${values}; its ablation value is ${signed(off)}.`);
  }

  // Stands below the controls, which would move under the pointer otherwise: it comes later than the rest.
  #showEffect() {
    if (!this.without) return void this.effect.replaceChildren();
    const parts = [], [answer, foil] = answerAndFoil(this.view, this.state), { circuit } = this.without;
    if (circuit.difference !== null) {
      const goes = (side) => `from ${signed(this.without[side].before)} to ${signed(this.without[side].difference)} in the ${SIDES[side]}`;
      const other = this.controls.isChanged ? ", both without this node’s own change" : "";
      const told = [tokenSpan(answer), " minus ", tokenSpan(foil), ` goes ${goes("circuit")}, and ${goes("full")}${other}.`];
      parts.push(element("p", { class: "moved" }, "Switched off at every token, ", ...told));
    }
    for (const side of Object.keys(SIDES)) {
      const logits = this.without[side].moved.flatMap(({ text, by }) => [tokenSpan(text), ` ${signed(by)} `]);
      const told = `With it minus without it, logits move most in the ${SIDES[side]}: `;
      parts.push(element("p", { class: "moved" }, told, ...logits));
    }
    this.effect.replaceChildren(...parts);
  }

  #showStrips() {
    const { circuit, full, twin } = this.view.nodes[this.key];
    const scale = largest(circuit, full, twin?.circuit, twin?.full);
    const strip = (title, tokens, values, chosen) => {
      const about = { role: "img", "aria-label": `${title}: ${strongest(tokens, values)}` };
      const spans = tokens.map(({ text }, t) => {
        const token = tokenSpan(text, t === chosen ? "chosen" : "", { title: `${t}: ${signed(values[t])}` });
        tint(token, values[t], scale);
        return token;
      });
      return element("div", { class: "strip tokens", ...about }, element("b", {}, title), ...spans);
    };
    const { tokens, twin: twinTokens, position, pairing } = this.view, sides = Object.keys(SIDES), own = { circuit, full };
    const strips = sides.map((side) => strip(`prompt, ${SIDES[side]}`, tokens, own[side], position));
    if (twin) strips.push(...sides.map((side) => strip(`twin, ${SIDES[side]}`, twinTokens, twin[side], pairing[position])));
    const legend = `Full color is ${signed(scale).slice(1)}, of either sign; point at a token for its value.`;
    this.strips.replaceChildren(...strips, element("p", { class: "faint" }, legend));
  }

  #showEdges(state) {
    const isOwn = ({ from, to }) => nodeKey(from) === this.key || nodeKey(to) === this.key;
    const rows = this.data.record.edges.filter(isOwn).map((edge) => this.#edge(edge, state));
    const titles = ["edge", "weight", "brings here, circuit", "full model", "patch this edge alone"];
    const none = element("p", { class: "faint" }, "No edge of the circuit: it matters through a constant, by itself, or by keeping others out where the largest entries alone stay (AbsTopK).");
    replaceInside(this.edges, this.active(), rows.length ? table(element("caption", {}, "Edges"), titles, rows) : none);
  }

  #edge(joined, state) {
    const { from, to, weight } = joined;
    const incoming = nodeKey(to) === this.key, other = incoming ? from : to;
    const name = (node) => this.name(node), edge = `edge from ${name(from)} to ${name(to)}`, key = `${nodeKey(from)}|${nodeKey(to)}`;
    const same = (change) => isOf(change, joined);
    const patched = state.changes.some(same), text = patched ? "As computed" : "Patch";
    const change = () => ({ kind: "edge", from, to, where: this.controls.where, at: this.controls.place });
    const patch = () => this.store.change(patched ? null : change(), same);
    const options = { class: "patch-edge", disabled: !patched && !this.view.twin, "aria-label": `${text}: ${edge}`, "data-key": `patch ${key}` };
    const choose = button(name(other), () => this.store.set({ node: nodeKey(other) }), { "data-key": key });
    const brings = (side) => signed(bring(this.view, state, joined, side, this.data.d_head));
    const number = (value) => element("td", { class: "number" }, value);
    return element(
      "tr",
      {},
      element("td", {}, incoming ? "from " : "to ", choose),
      ...[signed(weight), brings("circuit"), brings("full")].map(number),
      element("td", {}, button(text, patch, options)),
    );
  }

  #showContexts() {
    const found = this.data.contexts[this.key];
    this.contexts.hidden = !found;
    if (!found || this.contexts.dataset.node === this.key) return;
    this.contexts.dataset.node = this.key;
    const lines = (title, entries) => [element("h3", {}, title), ...entries.map(context)];
    this.contexts.replaceChildren(
      element("summary", {}, "Where it is strongest in validation text, in the full model"),
      ...lines("Largest values", found.top),
      ...lines("Smallest values", found.bottom),
    );
  }
}

function context({ tokens, at, value }) {
  return element("p", {}, `${signed(value)} `, ...tokens.map((text, t) => tokenSpan(text, t === at ? "chosen" : "")));
}

// The three largest values in words, for those who do not see colors.
function strongest(tokens, values) {
  const order = Array.from(values.keys()).sort((a, b) => Math.abs(values[b]) - Math.abs(values[a]));
  return `largest ${order.slice(0, 3).map((t) => `${signed(values[t])} at ${t} ${tokens[t].text}`).join(", ")}`;
}
