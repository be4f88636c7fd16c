// All samples by family: how often circuit and model are right, and which they get wrong; computed when asked for.

import { button, element, replaceInside } from "./dom.js";

const SAMPLE_COLUMNS = ["samples", "circuit right", "model right", "circuit decides as the model", "the circuit’s mistakes"];
const MISTAKES = 16; // mistakes of a family that are named
const SAMPLES_PAUSE = 400; // milliseconds between two looks of the growing table

export class SamplesView {
  constructor(page, prompts) {
    Object.assign(this, page, { prompts, found: new Map(), run: [], key: "", drawn: 0 });
    this.every = page.data.samples.flatMap(({ pairs }, family) => pairs.flatMap((pair, i) => pair.map((_, side) => [family, 2 * i + side])));
    this.details = this.find("all-samples");
    this.details.addEventListener("toggle", () => this.#start());
    this.body = element("tbody");
    const head = element("tr", {}, ...SAMPLE_COLUMNS.map((title) => element("th", { scope: "col" }, title)));
    this.find("all-samples-table").append(element("thead", {}, head), this.body);
  }

  // Decisions depend on the changes alone: others make those that are known stale.
  asked(state) {
    const key = JSON.stringify(state.changes);
    if (key === this.key) return;
    this.key = key;
    this.found.clear();
    this.run = [];
    this.engine.forget("samples");
  }

  show(state) {
    this.state = state;
    if (!this.found.size && !this.engine.wasAsked("samples")) this.#start();
  }

  #start() {
    if (!this.details.open || !this.state || this.found.size) return;
    this.run = this.every.map((place) => this.prompts.stateOf(...place));
    this.engine.does("samples", this.state, this.run);
    this.#draw();
  }

  // Decisions on some samples; those that an earlier run asked for are left aside.
  add(samples, decisions) {
    const places = samples.map((sample) => this.run.indexOf(sample));
    places.forEach((place, i) => place >= 0 && this.found.set(place, decisions[i]));
    if (this.found.size === this.every.length || performance.now() - this.drawn > SAMPLES_PAUSE) this.#draw();
  }

  #draw() {
    this.drawn = performance.now();
    const { changes } = this.state, { size } = this.found, total = this.every.length;
    const under = changes.length ? `, with your ${changes.length === 1 ? "change" : `${changes.length} changes`}` : "";
    const progress = size < total ? ` ${size} of ${total} computed.` : "";
    this.find("all-samples-said").textContent = `Right is where the answer is ahead of the foil at the last token${under}.${progress}`;
    replaceInside(this.body, this.active(), ...this.data.samples.map((_, family) => this.#row(family)));
  }

  #row(family) {
    const places = this.every.flatMap(([of, number], i) => (of === family && this.found.has(i) ? [[number, this.found.get(i)]] : []));
    const told = (counts) => (places.length ? `${places.filter(([, decision]) => counts(decision)).length} of ${places.length}` : "…");
    const share = (counts) => element("td", { class: "number" }, told(counts));
    const wrong = places.filter(([, { circuit }]) => circuit <= 0).map(([number]) => this.#mistake(family, number));
    const more = wrong.length > MISTAKES ? [` and ${wrong.length - MISTAKES} more`] : [];
    const unpatched = places.filter(([, decision]) => decision.unpatched).length;
    const note = unpatched ? element("span", { class: "faint" }, ` (${unpatched} without your patches: no twin to patch from)`) : null;
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, this.prompts.titles[family], note),
      share(({ circuit }) => circuit > 0),
      share(({ full }) => full > 0),
      share(({ circuit, full }) => circuit > 0 === full > 0),
      element("td", {}, ...wrong.slice(0, MISTAKES), ...more),
    );
  }

  #mistake(family, number) {
    const name = this.prompts.numberOf(family, number), title = this.prompts.titles[family];
    const about = { class: "mistake", "data-key": `${family} ${number}`, "aria-label": `Show ${title} ${name}` };
    return button(name, () => this.prompts.pick(family, number), about);
  }
}
