// The chosen node: its values over tokens, its edges, and what can be done to it.

import { byId, element, largest, nodeKey, nodeName, nodeOfKey, signed, tint, SIDES } from "./dom.js";
import { gathered } from "./drawing.js";


export class NodeView {
  constructor(data, store) {
    Object.assign(this, { data, store, where: "circuit", everywhere: false, view: null, without: null });
    const select = byId("node");
    select.append(element("option", { value: "" }, "none"));
    select.append(...[...data.keys].map((key) => element("option", { value: key }, nodeName(nodeOfKey(key), data.site_names))));
    select.addEventListener("change", () => store.set({ node: select.value || null }));
    document.addEventListener("keydown", (event) => {
      if (/^(TEXTAREA|INPUT|SELECT)$/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
      const by = { n: 1, p: -1 }[event.key.toLowerCase()];
      if (by) this.#step(by);
    });
    this.#build();
  }

  #step(by) {
    const keys = [...this.data.keys], at = keys.indexOf(this.store.state.node);
    this.store.set({ node: keys[(at + by + keys.length + (at < 0 && by < 0 ? 1 : 0)) % keys.length] });
  }

  // The controls stay as they are made, so that a slider that is drawn and the focus stay where they are.
  #build() {
    const radio = (name, value, text, checked, chosen) =>
      element("label", {}, element("input", { type: "radio", name, value, checked, on: { change: chosen } }), ` ${text}`);
    const side = (value, text) => radio("where", value, text, value === this.where, () => ((this.where = value), this.#showControls()));
    const place = (value, text) => radio("at", String(value), text, value === this.everywhere, () => ((this.everywhere = value), this.#showControls()));
    const slide = (event) => this.#set(Number(event.target.value), `slide ${this.store.state.node}`);
    this.slider = element("input", { type: "range", step: "any", "aria-label": "Value of the node", on: { input: slide } });
    this.number = element("input", { type: "number", step: "any", "aria-label": "Value of the node, as a number", on: { input: (event) => event.target.value !== "" && slide(event) } });
    const button = (id, text, click) => element("button", { type: "button", id, on: { click } }, text);
    this.off = button("switch-off", "Switch off", () => this.#put("off"));
    this.patch = button("patch", "Patch from the twin", () => this.#put("patch"));
    this.computed = button("as-computed", "As computed", () => this.store.change(null, (change) => this.#mine(change)));
    this.about = element("p", { class: "node-about", "aria-live": "polite" });
    this.effect = element("div");
    this.strips = element("div");
    this.edges = element("div", { class: "scroll edges" });
    this.contexts = element("details", { class: "contexts" });
    this.panel = element(
      "div",
      {},
      this.about,
      this.strips,
      element(
        "div",
        { class: "controls" },
        element("fieldset", {}, element("legend", {}, "Change it in"), side("circuit", "the circuit"), side("full", "the full model"), side("both", "both")),
        element("fieldset", {}, element("legend", {}, "at"), place(false, "the chosen token"), place(true, "every token")),
        this.slider, this.number, this.off, this.patch, this.computed,
      ),
      this.effect,
      this.edges,
      this.contexts,
    );
  }

  #mine(change) {
    return Boolean(change.node) && nodeKey(change.node) === this.store.state.node;
  }

  #replaced(at) {
    return (change) => this.#mine(change) && change.kind !== "edge" && (at === null || change.at === null || change.at === at);
  }

  #set(value, burst) {
    const at = this.everywhere ? null : this.view.position;
    this.store.change({ kind: "set", node: nodeOfKey(this.store.state.node), value, where: this.where, at }, this.#replaced(at), burst);
  }

  #put(kind) {
    const at = kind === "off" || this.everywhere ? null : this.view.position;
    this.store.change({ kind, node: nodeOfKey(this.store.state.node), where: this.where, at }, this.#replaced(at));
  }

  show(view, state) {
    this.view = view;
    byId("node").value = state.node ?? "";
    if (!state.node) {
      byId("node-panel").replaceChildren(element("p", { class: "faint" }, "Choose a node: click it in the drawing, pick it from the list, or press N."));
      return;
    }
    if (!this.panel.isConnected) byId("node-panel").replaceChildren(this.panel);
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
    const told = `In the circuit ${signed(circuit[at])}, in the full model ${signed(full[at])}; its ablation value is ${signed(off)}.`;
    this.about.replaceChildren(element("b", {}, nodeName(nodeOfKey(this.key), this.data.site_names)), ` at token ${at}. ${told}`);
  }

  // Stands below the controls, which would move under the pointer otherwise: it comes later than the rest.
  #showEffect() {
    if (!this.without) return void this.effect.replaceChildren();
    const { differences } = this.view, parts = [];
    if (this.without.circuit.difference !== null && !this.#isOff(() => true)) {
      const change = (side) => `from ${signed(differences[side].now)} to ${signed(this.without[side].difference)} in the ${SIDES[side]}`;
      parts.push(element("p", { class: "moved" }, `Switched off, answer minus foil goes ${change("circuit")}, and ${change("full")}.`));
    }
    for (const side of Object.keys(SIDES)) {
      const logits = this.without[side].moved.flatMap(({ text, by }) => [element("span", { class: "token" }, text), ` ${signed(by)} `]);
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
      const row = element("div", { class: "strip tokens", role: "img", "aria-label": `${title}: ${told(tokens, values)}` }, element("b", {}, title));
      tokens.forEach(({ text }, t) => {
        const token = element("span", { class: t === chosen ? "token chosen" : "token", title: `${t}: ${signed(values[t])}` }, text);
        tint(token, values[t], scale);
        row.append(token);
      });
      return row;
    };
    const { tokens, twin: twinTokens, position, pairing } = this.view;
    const strips = [strip("prompt, circuit", tokens, circuit, position), strip("prompt, full model", tokens, full, position)];
    if (twin) strips.push(...Object.keys(SIDES).map((side) => strip(`twin, ${SIDES[side]}`, twinTokens, twin[side], pairing[position])));
    this.strips.replaceChildren(...strips, element("p", { class: "faint" }, `Full color is ${signed(scale).slice(1)}, of either sign; point at a token for its value.`));
  }

  #showControls() {
    if (!this.view || !this.key) return;
    const { circuit, full, twin } = this.view.nodes[this.key], at = this.view.position;
    const value = (this.where === "full" ? full : circuit)[at], range = 2 * (largest(circuit, full, twin?.circuit) || 1);
    if (document.activeElement !== this.slider) Object.assign(this.slider, { min: String(-range), max: String(range), value: String(value) });
    if (document.activeElement !== this.number) this.number.value = Number(value.toPrecision(4));
    this.patch.disabled = !twin || this.view.pairing[at] === null;
    this.computed.disabled = !this.store.state.changes.some((change) => this.#mine(change));
    const off = this.#isOff((change) => change.where === this.where);
    this.off.textContent = off ? "It is off" : "Switch off";
    this.off.disabled = off;
  }

  #showEdges(state) {
    const node = this.key, own = this.data.record.edges.filter(({ from, to }) => nodeKey(from) === node || nodeKey(to) === node);
    const rows = own.map((edge) => this.#edge(edge, nodeKey(edge.to) === node, state));
    const head = element("tr", {}, ...["edge", "weight", "brings here, circuit", "full model", "path"].map((title) => element("th", { scope: "col" }, title)));
    const none = element("p", { class: "faint" }, "No edge of the circuit: it matters through a constant, or by itself.");
    this.edges.replaceChildren(rows.length ? element("table", {}, element("caption", {}, "Edges"), element("thead", {}, head), element("tbody", {}, ...rows)) : none);
  }

  #edge({ from, to, weight }, incoming, state) {
    const name = (node) => nodeName(node, this.data.site_names), other = incoming ? from : to;
    const choose = () => this.store.set({ node: nodeKey(other) });
    const brings = (side) => signed(weight * gathered(this.view, from, side, this.data.d_head));
    const same = (change) => change.kind === "edge" && nodeKey(change.from) === nodeKey(from) && nodeKey(change.to) === nodeKey(to);
    const patched = state.changes.some(same);
    const patch = () => this.store.change(patched ? null : { kind: "edge", from, to, where: this.where, at: null }, same);
    const label = `${patched ? "As computed" : "Patch from the twin"}: edge from ${name(from)} to ${name(to)}`;
    return element(
      "tr",
      {},
      element("td", {}, incoming ? "from " : "to ", element("button", { type: "button", on: { click: choose } }, name(other))),
      element("td", { class: "number" }, signed(weight)),
      element("td", { class: "number" }, brings("circuit")),
      element("td", { class: "number" }, brings("full")),
      element("td", {}, element("button", { type: "button", class: "patch-edge", disabled: !patched && !this.view.twin, "aria-label": label, on: { click: patch } }, patched ? "As computed" : "Patch")),
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
  const made = element("p", {}, `${signed(value)} `);
  tokens.forEach((text, t) => made.append(element("span", { class: t === at ? "token chosen" : "token" }, text)));
  return made;
}

// The three largest values in words, for those who do not see colors.
function told(tokens, values) {
  const order = Array.from(values.keys()).sort((a, b) => Math.abs(values[b]) - Math.abs(values[a])).slice(0, 3);
  return `largest ${order.map((t) => `${signed(values[t])} at ${t} ${tokens[t].text}`).join(", ")}`;
}
