// The next token after the chosen one: circuit and full model side by side.

import { element, percent, signed, table, tokenSpan } from "./dom.js";

const TITLES = { circuit: "Circuit", full: "Full model" };

export function showPredictions({ find }, view, state) {
  const sides = Object.keys(TITLES);
  find("predictions").replaceChildren(...sides.map((side) => predictions(side, view, state)));
  const differences = state.answer === null ? [] : sides.map((side) => difference(side, view.differences[side]));
  find("difference").replaceChildren(...differences);
}

function difference(side, { now, before }) {
  const share = `, ${percent(1 / (1 + Math.exp(-now)))} of the two`;
  const changed = Math.abs(now - before) > 5e-4 ? ` (${signed(before)} without the changes)` : "";
  const told = [`${TITLES[side]}: answer minus foil `, element("b", {}, signed(now)), share, changed];
  return element("span", { id: `difference-${side}` }, ...told);
}

function predictions(side, view, { answer, foil }) {
  const rows = view.predictions[side].map(({ id, text, probability }) => {
    const kind = id === answer ? "answer" : id === foil ? "foil" : "", bar = element("i");
    bar.style.setProperty("--share", `${100 * probability}%`);
    return element(
      "tr",
      { class: kind },
      element("td", {}, tokenSpan(text)),
      element("td", { class: "mark" }, kind),
      element("td", { class: "number" }, percent(probability)),
      element("td", { class: "bar", "aria-hidden": "true" }, bar),
    );
  });
  const caption = element("caption", {}, `${TITLES[side]}, after `, tokenSpan(view.tokens[view.position].text));
  return table(caption, ["token", "", "probability", ""], rows, { id: `predictions-${side}` });
}
