// The next token after the chosen one: circuit and full model side by side.

import { byId, element, percent, signed } from "./dom.js";

const TITLES = { circuit: "Circuit", full: "Full model" };

export function showPredictions({ predictions, differences, tokens, position }, { answer, foil }) {
  byId("predictions").replaceChildren(...Object.keys(TITLES).map((side) => table(side, predictions[side], answer, foil, tokens[position].text)));
  const facts = Object.keys(TITLES).map((side) => {
    const { now, before } = differences[side];
    const share = now === null ? "" : `, ${percent(1 / (1 + Math.exp(-now)))} of the two`;
    const changed = now !== null && Math.abs(now - before) > 5e-4 ? ` (${signed(before)} without the changes)` : "";
    return element("span", { id: `difference-${side}` }, `${TITLES[side]}: answer minus foil `, element("b", {}, signed(now)), share, changed);
  });
  byId("difference").replaceChildren(...(answer === null ? [] : facts));
}

function table(side, rows, answer, foil, token) {
  const body = rows.map(({ id, text, probability }) => {
    const kind = id === answer ? "answer" : id === foil ? "foil" : "";
    const bar = element("i");
    bar.style.setProperty("--share", `${100 * probability}%`);
    return element(
      "tr",
      { class: kind },
      element("td", {}, element("span", { class: "token" }, text)),
      element("td", { class: "mark" }, kind),
      element("td", { class: "number" }, percent(probability)),
      element("td", { class: "bar", "aria-hidden": "true" }, bar),
    );
  });
  const head = element("tr", {}, ...["token", "", "probability"].map((title) => element("th", { scope: "col" }, title)), element("td"));
  const caption = element("caption", {}, `${TITLES[side]}, after `, element("span", { class: "token" }, token));
  return element("table", { id: `predictions-${side}` }, caption, element("thead", {}, head), element("tbody", {}, ...body));
}
