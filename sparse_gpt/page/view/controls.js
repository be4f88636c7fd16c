// What can be done to the chosen node: switch it off, give it another value, patch it from the twin.

import { button, element, largest, nodeKey, nodeOfKey } from "./dom.js";

const EQUAL = 1e-6; // of values that patching would not change

export class Controls {
  constructor(page) {
    Object.assign(this, page, { where: "circuit", at: "every", view: null, key: null });
    const slide = ({ target }) => target.value !== "" && this.#set(Number(target.value), `slide ${this.key}`);
    const value = { step: "any", on: { input: slide } };
    this.slider = element("input", { type: "range", "aria-label": "Value of the node", ...value });
    this.number = element("input", { type: "number", "aria-label": "Value of the node, as a number", ...value });
    this.off = button("Switch off", () => this.switch(), { id: "switch-off", "aria-keyshortcuts": "O" });
    this.patch = button("Patch from the twin", () => this.#put("patch"), { id: "patch" });
    this.computed = button("As computed", () => this.store.change(null, (change) => this.#mine(change)));
    this.note = element("p", { class: "faint", id: "patch-said" });
    this.element = element("div", {}, ...this.#rows(), this.note);
  }

  // The controls stay as they are made, so that a slider that is drawn and the focus stay where they are.
  #rows() {
    const where = this.#choice("Change it in", "where", { circuit: "the circuit", full: "the full model", both: "both" });
    const at = this.#choice("Another value, at", "at", { every: "every token", chosen: "the chosen token" });
    at.append(this.slider, this.number, this.patch);
    const row = (...parts) => element("div", { class: "controls" }, ...parts);
    return [row(where, this.off, this.computed), row(at)];
  }

  // Radio buttons for one of the fields of this view.
  #choice(title, field, texts) {
    const options = Object.entries(texts).map(([value, text]) => {
      const chosen = () => {
        this[field] = value;
        this.show(this.view, this.key);
      };
      const about = { name: field, value, checked: this[field] === value, on: { change: chosen } };
      return element("label", {}, element("input", { type: "radio", ...about }), ` ${text}`);
    });
    return element("fieldset", {}, element("legend", {}, title), ...options);
  }

  #mine(change) {
    return Boolean(change.node) && nodeKey(change.node) === this.key;
  }

  #replaced(at) {
    return (change) => this.#mine(change) && (at === null || change.at === null || change.at === at);
  }

  get place() {
    return this.at === "every" ? null : this.view.position;
  }

  #set(value, burst) {
    const at = this.place;
    this.store.change({ kind: "set", node: nodeOfKey(this.key), value, where: this.where, at }, this.#replaced(at), burst);
  }

  #put(kind, at = this.place) {
    this.store.change({ kind, node: nodeOfKey(this.key), where: this.where, at }, this.#replaced(at));
  }

  // Off at every token, or on again.
  switch() {
    if (!this.view || !this.key) return;
    if (this.#isOff()) this.store.change(null, (change) => this.#isMineOff(change));
    else this.#put("off", null);
  }

  #isMineOff(change) {
    return this.#mine(change) && change.kind === "off" && change.where === this.where;
  }

  #isOff() {
    return this.store.state.changes.some((change) => this.#isMineOff(change));
  }

  get isChanged() {
    return this.store.state.changes.some((change) => this.#mine(change));
  }

  show(view, key) {
    Object.assign(this, { view, key });
    if (!view || !key) return;
    const { circuit, full, twin } = view.nodes[key], at = view.position;
    const value = (this.where === "full" ? full : circuit)[at], range = 2 * (largest(circuit, full, twin?.circuit) || 1);
    const slides = this.active() === this.slider && this.store.burst === `slide ${key}`; // what a person moves stays
    if (!slides) {
      Object.assign(this.slider, { min: String(-range), max: String(range), value: String(value) });
    }
    if (this.active() !== this.number) this.number.value = Number(value.toPrecision(4));
    this.computed.disabled = !this.isChanged;
    this.off.textContent = this.#isOff() ? "Switch on again" : "Switch off";
    this.#showPatch(view, view.nodes[key]);
  }

  #showPatch({ pairing, position, tokens }, values) {
    const places = (this.at === "every" ? [...tokens.keys()] : [position]).filter((t) => pairing && pairing[t] !== null);
    const sides = this.where === "both" ? ["circuit", "full"] : [this.where];
    this.patch.disabled = !values.twin || !places.length;
    const equal = (t) => sides.every((side) => Math.abs(values[side][t] - values.twin[side][pairing[t]]) <= EQUAL);
    const same = !this.patch.disabled && places.every(equal), where = this.at === "every" ? "at every token" : "here";
    const patched = this.store.state.changes.some((change) => this.#mine(change) && change.kind === "patch");
    const equals = patched ? `It has the twin’s value ${where}; Undo, or As computed, takes it back.` : `The value equals the twin’s ${where}: patching changes nothing.`;
    this.note.textContent = same ? equals : values.twin ? "" : "There is no twin to patch from; write one above.";
  }
}
