// The two prompts, the samples to pick, answer and foil, and the row of tokens.

import { element, largest, tint, tokenSpan } from "./dom.js";

const OWN = "own"; // value of the list of samples where the prompt is none of them

export class PromptView {
  constructor(page) {
    const { samples } = page.data;
    Object.assign(this, page, { samples, tokens: [], family: 0 });
    const roles = { searched: "searched on", "left aside": "not searched on", novel: "novel" };
    const titles = (this.titles = samples.map(({ name, role }) => (roles[role] ? `${name} (${roles[role]})` : name)));
    const own = element("option", { value: OWN, disabled: true }, "own prompt");
    this.find("family").append(own, ...titles.map((title, i) => element("option", { value: String(i) }, title)));
    this.find("family").addEventListener("change", () => this.pick(Number(this.find("family").value), 0));
    this.find("sample").addEventListener("change", () => this.pick(this.family, Number(this.find("sample").value)));
    this.find("swap").addEventListener("click", () => this.#swap());
    this.find("exchange").addEventListener("click", () => {
      const { answer, foil } = this.store.state;
      this.store.set({ answer: foil, foil: answer });
    });
    for (const name of ["prompt", "twin"]) {
      const take = ({ target }) => this.store.set({ [name]: edited(this.store.state[name], target.value) }, `type ${name}`);
      this.find(name).addEventListener("input", take);
    }
    for (const name of ["answer", "foil"]) this.find(name).addEventListener("change", () => this.#choose(name));
    this.find("tokens").addEventListener("keydown", (event) => this.#key(event));
  }

  // State of the first sample.
  first() {
    return this.stateOf(0, 0);
  }

  // Where the prompt of a state stands among the samples, [family, number], first in the family that is shown; or null.
  placeOf({ prompt }) {
    const families = [this.family, ...this.samples.keys()];
    for (const family of families) {
      const number = this.samples[family].pairs.flatMap((pair) => [pair[0].prompt, pair[1]?.prompt]).indexOf(prompt);
      if (number >= 0) return [family, number];
    }
    return null;
  }

  // Whether it is a sample, with the twin of its pair.
  isPair(state) {
    const place = this.placeOf(state);
    return Boolean(place) && this.stateOf(...place).twin === state.twin;
  }

  // Whether answer and foil are those of the sample.
  isSample(state) {
    const place = this.placeOf(state), of = place && this.stateOf(...place);
    return Boolean(of) && of.answer === state.answer && of.foil === state.foil;
  }

  // The lists say what the state holds, however it came about.
  #showPlace(state) {
    const place = this.placeOf(state), sample = this.find("sample");
    this.find("family").value = place ? String(place[0]) : OWN;
    sample.disabled = !place;
    if (!place) return void sample.replaceChildren();
    this.family = place[0];
    if (sample.dataset.family !== String(this.family) || !sample.options.length) this.#fillNumbers();
    sample.value = String(place[1]);
  }

  #fillNumbers() {
    const numbers = this.samples[this.family].pairs.flatMap((pair, i) => pair.map((_, side) => 2 * i + side));
    const options = numbers.map((number) => element("option", { value: String(number) }, this.numberOf(this.family, number)));
    this.find("sample").replaceChildren(...options);
    this.find("sample").dataset.family = String(this.family);
  }

  // "3a": the first of the third pair.
  numberOf(family, number) {
    const { length } = this.samples[family].pairs[number >> 1];
    return `${(number >> 1) + 1}${length > 1 ? "ab"[number & 1] : ""}`;
  }

  // Takes a sample.
  pick(family, number) {
    this.family = family;
    this.store.set({ ...this.stateOf(family, number), position: null });
  }

  // Prompt, twin, answer and foil of a sample.
  stateOf(family, number) {
    const pair = this.samples[family].pairs[number >> 1], { prompt, answer, foil } = pair[number & 1];
    return { prompt, answer, foil, twin: pair[1 - (number & 1)]?.prompt ?? "" };
  }

  #swap() {
    const { prompt, twin, answer, foil } = this.store.state;
    if (twin) this.store.set({ prompt: twin, twin: prompt, answer: foil, foil: answer });
  }

  // Takes another answer or foil, which has to be one token. It is written with signs for white space, or as it is.
  #choose(name) {
    const input = this.find(name), { tokenizer, store } = this;
    const ids = tokenizer.encode(tokenizer.read(input.value)), fits = ids.length === 1 && ids[0] < this.vocabulary;
    const parts = ids.slice(0, 5).map((id) => tokenizer.show(id)).join(" | ");
    this.find("answer-said").textContent = fits ? "" : `An ${name === "foil" ? "answer or a foil" : "answer"} is one token; this is ${ids.length}: ${parts}`;
    if (fits) store.set({ [name]: ids[0], ...(store.state.answer === null && { answer: ids[0], foil: ids[0], [name]: ids[0] }) });
  }

  // Texts as the state has them; a field that is being edited has them already.
  showTexts(state) {
    const { prompt, twin, answer, foil } = state;
    for (const [name, text] of Object.entries({ prompt, twin })) if (this.find(name).value !== text) this.find(name).value = text;
    for (const [name, id] of Object.entries({ answer, foil })) {
      if (this.find(name) !== this.active() || id !== this[name]) this.find(name).value = id === null ? "" : this.tokenizer.show(id);
      this[name] = id;
    }
    this.find("swap").disabled = !twin;
    this.find("exchange").disabled = answer === null;
    this.#showPlace(state);
  }

  // The row of tokens, colored by the values (T) of the chosen node, if any.
  show({ tokens, position }, values) {
    const row = this.find("tokens"), focused = row.contains(this.active());
    const scale = largest(values);
    this.tokens = tokens.map(({ text }, t) => {
      const chosen = t === position;
      const about = { tabIndex: chosen ? 0 : -1, "aria-selected": String(chosen), "aria-label": `${t}: ${text}` };
      const token = tokenSpan(text, "", { role: "option", ...about });
      if (values) tint(token, values[t], scale);
      token.addEventListener("click", () => this.store.set({ position: t }));
      return token;
    });
    const endsLine = (t) => tokens[t].text.includes("↵");
    row.replaceChildren(...this.tokens.flatMap((token, t) => (endsLine(t) ? [token, element("br")] : [token])));
    if (focused) this.tokens[position].focus();
  }

  #key(event) {
    const at = this.tokens.indexOf(this.active()), last = this.tokens.length - 1;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    if (to >= 0 && to <= last) this.store.set({ position: to });
  }
}

// A text after an edit that made `value` of what the text area showed of it, which has line feeds for carriage returns:
// it keeps them where it was not touched.
function edited(text, value) {
  if (!text.includes("\r")) return value;
  const units = text.match(/\r\n|[^]/g), shown = units.map((unit) => (unit[0] === "\r" ? "\n" : unit));
  const most = Math.min(shown.length, value.length);
  let first = 0, last = 0;
  while (first < most && shown[first] === value[first]) first++;
  while (last < most - first && shown.at(-1 - last) === value.at(-1 - last)) last++;
  return units.slice(0, first).join("") + value.slice(first, value.length - last) + units.slice(units.length - last).join("");
}
