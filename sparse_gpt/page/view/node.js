// The chosen node: its values over tokens, its edges, and what can be done to it.

import { button, element, largest, nodeKey, nodeOfKey, SIDES, signed, table, tint, tokenSpan } from "./dom.js";
import { gathered } from "./drawing.js";


const OPTIONS = 500; // nodes in the list; the search finds the others

export class NodeView {
  constructor(page) {
    Object.assign(this, page, { where: "circuit", at: "chosen", view: null, without: null });
    const { store } = page, select = this.find("node");
    this.#fillList("");
    select.addEventListener("change", () => store.set({ node: select.value || null }));
    this.find("find").addEventListener("input", () => this.#fillList(this.find("find").value));
    this.keys.addEventListener("keydown", (event) => {
      if (/^(TEXTAREA|INPUT|SELECT)$/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
      const by = { n: 1, p: -1 }[event.key.toLowerCase()];
      if (by) this.#step(by);
    });
    this.#build();
  }

  // The list of nodes, of those whose names have a text in them; the chosen one stays.
  #fillList(text) {
    const wanted = text.trim().toLowerCase(), chosen = this.store.state.node;
    const named = [...this.data.keys].map((key) => [key, this.name(nodeOfKey(key))]);
    const found = named.filter(([key, name]) => key === chosen || name.toLowerCase().includes(wanted)).slice(0, OPTIONS);
    const none = element("option", { value: "" }, wanted ? `none (${found.length} found)` : "none");
    this.find("node").replaceChildren(none, ...found.map(([key, name]) => element("option", { value: key }, name)));
    this.find("node").value = chosen ?? "";
  }

  #step(by) {
    const keys = [...this.data.keys], at = keys.indexOf(this.store.state.node);
    this.store.set({ node: keys[(at + by + keys.length + (at < 0 && by < 0 ? 1 : 0)) % keys.length] });
  }

  // The controls stay as they are made, so that a slider that is drawn and the focus stay where they are.
  #build() {
    const slide = ({ target }) => target.value !== "" && this.#set(Number(target.value), `slide ${this.key}`);
    const value = { step: "any", on: { input: slide } };
    this.slider = element("input", { type: "range", "aria-label": "Value of the node", ...value });
    this.number = element("input", { type: "number", "aria-label": "Value of the node, as a number", ...value });
    this.off = button("Switch off", () => this.#put("off"), { id: "switch-off" });
    this.patch = button("Patch from the twin", () => this.#put("patch"), { id: "patch" });
    this.computed = button("As computed", () => this.store.change(null, (change) => this.#mine(change)));
    const controls = [
      this.#choice("Change it in", "where", { circuit: "the circuit", full: "the full model", both: "both" }),
      this.#choice("at", "at", { chosen: "the chosen token", every: "every token" }),
      ...[this.slider, this.number, this.off, this.patch, this.computed],
    ];
    this.about = element("p", { class: "node-about", "aria-live": "polite" });
    this.strips = element("div");
    this.effect = element("div");
    this.edges = element("div", { class: "scroll edges" });
    this.contexts = element("details", { class: "contexts" });
    const parts = [this.strips, element("div", { class: "controls" }, ...controls), this.effect, this.edges, this.contexts];
    this.panel = element("div", {}, this.about, ...parts);
  }

  // Radio buttons for one of the fields of this view.
  #choice(title, field, texts) {
    const options = Object.entries(texts).map(([value, text]) => {
      const chosen = () => {
        this[field] = value;
        this.#showControls();
      };
      const about = { name: field, value, checked: this[field] === value, on: { change: chosen } };
      return element("label", {}, element("input", { type: "radio", ...about }), ` ${text}`);
    });
    return element("fieldset", {}, element("legend", {}, title), ...options);
  }

  #mine(change) {
    return Boolean(change.node) && nodeKey(change.node) === this.store.state.node;
  }

  #replaced(at) {
    return (change) => this.#mine(change) && (at === null || change.at === null || change.at === at);
  }

  #set(value, burst) {
    const at = this.#place();
    this.store.change({ kind: "set", node: nodeOfKey(this.key), value, where: this.where, at }, this.#replaced(at), burst);
  }

  #place() {
    return this.at === "every" ? null : this.view.position;
  }

  #put(kind) {
    const at = kind === "off" ? null : this.#place();
    this.store.change({ kind, node: nodeOfKey(this.key), where: this.where, at }, this.#replaced(at));
  }

  show(view, state) {
    this.view = view;
    this.find("node").value = state.node ?? "";
    if (this.find("node").selectedIndex < 0) this.#fillList(this.find("find").value);
    if (!state.node) {
      const how = "Choose a node: click it in the drawing, pick it from the list, or press N.";
      this.find("node-panel").replaceChildren(element("p", { class: "faint" }, how));
      return;
    }
    if (!this.panel.isConnected) this.find("node-panel").replaceChildren(this.panel);
    if (this.key !== state.node) this.without = null;
    this.key = state.node;
    this.#showAbout();
    this.#showEffect();
    this.#showStrips();
    this.#showControls();
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
    const { differences } = this.view, parts = [];
    if (this.without.circuit.difference !== null && !this.#isOff(() => true)) {
      const off = (side) => signed(this.without[side].difference);
      const goes = (side) => `from ${signed(differences[side].now)} to ${off(side)} in the ${SIDES[side]}`;
      const told = `Switched off, answer minus foil goes ${goes("circuit")}, and ${goes("full")}.`;
      parts.push(element("p", { class: "moved" }, told));
    }
    for (const side of Object.keys(SIDES)) {
      const logits = this.without[side].moved.flatMap(({ text, by }) => [tokenSpan(text), ` ${signed(by)} `]);
      parts.push(element("p", { class: "moved" }, `Logits that it moves most in the ${SIDES[side]}: `, ...logits));
    }
    this.effect.replaceChildren(...parts);
  }

  #isOff(where) {
    return this.store.state.changes.some((change) => this.#mine(change) && change.kind === "off" && where(change));
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

  #showControls() {
    if (!this.view || !this.key) return;
    const { circuit, full, twin } = this.view.nodes[this.key], at = this.view.position;
    const value = (this.where === "full" ? full : circuit)[at], range = 2 * (largest(circuit, full, twin?.circuit) || 1);
    if (this.active() !== this.slider) {
      Object.assign(this.slider, { min: String(-range), max: String(range), value: String(value) });
    }
    if (this.active() !== this.number) this.number.value = Number(value.toPrecision(4));
    this.patch.disabled = !twin || this.view.pairing[at] === null;
    this.computed.disabled = !this.store.state.changes.some((change) => this.#mine(change));
    const off = this.#isOff((change) => change.where === this.where);
    this.off.textContent = off ? "It is off" : "Switch off";
    this.off.disabled = off;
  }

  #showEdges(state) {
    const isOwn = ({ from, to }) => nodeKey(from) === this.key || nodeKey(to) === this.key;
    const rows = this.data.record.edges.filter(isOwn).map((edge) => this.#edge(edge, state));
    const titles = ["edge", "weight", "brings here, circuit", "full model", "path"];
    const none = element("p", { class: "faint" }, "No edge of the circuit: it matters through a constant, or by itself.");
    this.edges.replaceChildren(rows.length ? table(element("caption", {}, "Edges"), titles, rows) : none);
  }

  #edge({ from, to, weight }, state) {
    const incoming = nodeKey(to) === this.key, other = incoming ? from : to;
    const name = (node) => this.name(node), edge = `edge from ${name(from)} to ${name(to)}`;
    const same = (change) =>
      change.kind === "edge" && nodeKey(change.from) === nodeKey(from) && nodeKey(change.to) === nodeKey(to);
    const patched = state.changes.some(same), text = patched ? "As computed" : "Patch";
    const change = () => ({ kind: "edge", from, to, where: this.where, at: this.#place() });
    const patch = () => this.store.change(patched ? null : change(), same);
    const options = { class: "patch-edge", disabled: !patched && !this.view.twin, "aria-label": `${text}: ${edge}` };
    const brings = (side) => signed(weight * gathered(this.view, from, side, this.data.d_head));
    const number = (value) => element("td", { class: "number" }, value);
    return element(
      "tr",
      {},
      element("td", {}, incoming ? "from " : "to ", button(name(other), () => this.store.set({ node: nodeKey(other) }))),
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
