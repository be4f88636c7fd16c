// The two prompts, the samples to pick, and the row of tokens.

import { element, largest, tint, tokenSpan } from "./dom.js";

export class PromptView {
  constructor(page) {
    const { samples } = page.data;
    Object.assign(this, page, { samples, tokens: [] });
    const roles = { searched: "searched on", "left aside": "not searched on", novel: "novel" };
    const titles = samples.map(({ name, role }) => (roles[role] ? `${name} (${roles[role]})` : name));
    this.find("family").append(...titles.map((title, i) => element("option", { value: String(i) }, title)));
    this.find("family").addEventListener("change", () => this.#pick(0));
    this.find("sample").addEventListener("change", () => this.#pick(Number(this.find("sample").value)));
    this.find("swap").addEventListener("click", () => this.#swap());
    this.find("exchange").addEventListener("click", () => {
      const { answer, foil } = this.store.state;
      this.store.set({ answer: foil, foil: answer });
    });
    for (const name of ["prompt", "twin"]) {
      this.find(name).addEventListener("input", () => this.store.set({ [name]: this.find(name).value }, `type ${name}`));
    }
    this.find("tokens").addEventListener("keydown", (event) => this.#key(event));
    this.#fillNumbers();
  }

  // State of the first sample.
  first() {
    return this.#stateOf(0, 0);
  }

  #fillNumbers() {
    const { pairs } = this.samples[Number(this.find("family").value)];
    const options = pairs.flatMap((pair, i) =>
      pair.map((_, side) => element("option", { value: String(2 * i + side) }, `${i + 1}${pair.length > 1 ? "ab"[side] : ""}`)),
    );
    this.find("sample").replaceChildren(...options);
  }

  #pick(number) {
    this.#fillNumbers();
    this.find("sample").value = String(number);
    this.store.set({ ...this.#stateOf(Number(this.find("family").value), number), position: null });
  }

  #stateOf(family, number) {
    const pair = this.samples[family].pairs[number >> 1], { prompt, answer, foil } = pair[number & 1];
    return { prompt, answer, foil, twin: pair[1 - (number & 1)]?.prompt ?? "" };
  }

  #swap() {
    const { prompt, twin, answer, foil } = this.store.state;
    if (twin) this.store.set({ prompt: twin, twin: prompt, answer: foil, foil: answer });
  }

  // Texts as the state has them; a field that is being edited has them already.
  showTexts({ prompt, twin }) {
    for (const [name, text] of Object.entries({ prompt, twin })) if (this.find(name).value !== text) this.find(name).value = text;
    this.find("swap").disabled = !twin;
    this.find("exchange").disabled = this.store.state.answer === null;
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
      token.addEventListener("click", () => this.#choose(t));
      return token;
    });
    const endsLine = (t) => tokens[t].text.includes("↵");
    row.replaceChildren(...this.tokens.flatMap((token, t) => (endsLine(t) ? [token, element("br")] : [token])));
    if (focused) this.tokens[position].focus();
  }

  #choose(position) {
    this.store.set({ position });
  }

  #key(event) {
    const at = this.tokens.indexOf(this.active()), last = this.tokens.length - 1;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    if (to >= 0 && to <= last) this.#choose(to);
  }
}
