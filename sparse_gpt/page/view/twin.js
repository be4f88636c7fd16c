// What is to be said of the twin, and another one for a prompt of one's own, where pairs differ by one token.

import { button, size, tokenSpan } from "./dom.js";

export class TwinView {
  constructor(page) {
    Object.assign(this, page);
    const pairs = page.data.samples.flatMap(({ pairs }) => pairs).filter((pair) => pair.length > 1);
    this.swaps = swapsOf(pairs.map((pair) => pair.map(({ prompt }) => page.tokenizer.encode(prompt))));
  }

  show(view, state, prompts) {
    const said = this.find("twin-said"), isPair = prompts.isPair(state), made = isPair ? null : this.#made(state.prompt);
    const parts = problems(view, isPair);
    if (made && made.text !== state.twin) {
      const [from, to] = made.swap.map((id) => this.tokenizer.show(id));
      parts.push(button("Make its twin", () => this.store.set({ twin: made.text })), " ", tokenSpan(from), " becomes ", tokenSpan(to));
    }
    said.replaceChildren(...parts);
  }

  // The prompt with the one token replaced that tells the task's pairs apart; null without such a token, or with several.
  #made(prompt) {
    const ids = this.tokenizer.encode(prompt), places = ids.flatMap((id, t) => (this.swaps.has(id) ? [t] : []));
    if (places.length !== 1) return null;
    const from = ids[places[0]], to = this.swaps.get(from), twin = ids.with(places[0], to);
    const text = this.tokenizer.decode(twin);
    return this.tokenizer.encode(text).join() === twin.join() ? { text, swap: [from, to] } : null;
  }
}

// Token -> the one that replaces it in pairs that differ by one token; those without, or with several, are left out.
function swapsOf(pairs) {
  const swaps = new Map(), several = new Set();
  for (const [some, other] of pairs) {
    const differ = some.length === other.length ? some.flatMap((id, t) => (id !== other[t] ? [t] : [])) : [];
    if (differ.length !== 1) continue;
    for (const [from, to] of [[some[differ[0]], other[differ[0]]], [other[differ[0]], some[differ[0]]]]) {
      if ((swaps.get(from) ?? to) !== to) several.add(from);
      swaps.set(from, to);
    }
  }
  for (const id of several) swaps.delete(id);
  return swaps;
}

// Why patching from this twin would say little; texts and elements.
function problems({ tokens, twin, decided }, isPair) {
  if (!twin) return isPair ? [] : ["There is no twin; patching needs one. "];
  const differ = twin.filter(({ id }, t) => id !== tokens[t]?.id).length, parts = [];
  if (!differ && twin.length === tokens.length) return ["The twin is the prompt itself: patching from it changes nothing. "];
  if (!isPair && twin.length !== tokens.length) {
    parts.push(`The twin has ${twin.length} tokens, the prompt ${tokens.length}: after the first that differs, places are counted from the end. `);
  } else if (!isPair) parts.push(`The twin differs from the prompt in ${differ} token${differ > 1 ? "s" : ""}. `);
  const [here, there] = decided; // after the last token, whichever is chosen
  if (here * there > 0) {
    parts.push(`It is no counterpart: the full model decides the same on both (${size(here)} here, ${size(there)} there). `);
  }
  return parts;
}
