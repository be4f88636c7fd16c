// The next token after the chosen one: circuit and full model side by side, and in a line which of answer and foil wins.

import { element, percent, size, table, tokenSpan } from "./dom.js";

const TITLES = { circuit: "Circuit", full: "Full model" }, SHORT = { circuit: "Circuit", full: "Model" };

// `sampled`: whether the prompt is a sample, whose answer is known to be right.
export function showPredictions({ find }, view, state, sampled) {
  const sides = Object.keys(TITLES);
  find("predictions").replaceChildren(...sides.map((side) => predictions(side, view, state)));
  const lines = state.answer === null ? [] : sides.map((side) => decision(side, view, state, sampled));
  const { circuit, full } = view.differences, differ = lines.length && circuit.now > 0 !== full.now > 0;
  if (differ && isLast(view)) lines.push(element("span", { id: "disagree", class: "problem" }, "They disagree"));
  find("difference").replaceChildren(...lines, note(view, state));
}

// How answer and foil read, to be named where their difference is told.
export function answerAndFoil(view, { answer, foil }) {
  const text = (id) => view.predictions.circuit.find((row) => row.id === id)?.text ?? "";
  return [text(answer), text(foil)];
}

// Whichever of the two wins stands first: of one's own prompt nobody has said which is right.
function decision(side, view, state, sampled) {
  const { now, before } = view.differences[side], sign = now < 0 ? -1 : 1, texts = answerAndFoil(view, state);
  const [first, second] = sign < 0 ? texts.reverse() : texts;
  const told = [`${SHORT[side]}: `, tokenSpan(first), " over ", tokenSpan(second), " by ", element("b", {}, size(now))];
  told.push(` (${percent(1 / (1 + Math.exp(-Math.abs(now))))})`);
  if (state.changes.length) told.push(...without(now, before, [second, first]));
  else if (sampled && now < 0 && isLast(view)) told.push(element("span", { class: "problem" }, " wrong"));
  return element("span", { id: `difference-${side}` }, ...told);
}

// Only after the last token one of answer and foil is right; at others the two are compared, and not judged.
function isLast({ tokens, position }) {
  return position === tokens.length - 1;
}

// What it is without the changes: which of the two was ahead is named where that was the other one.
function without(now, before, [other, same]) {
  if (now === before) return [", unmoved"];
  if (now < 0 === before < 0) return [`, by ${size(before)} without changes`];
  return [element("span", { class: "problem" }, " flipped"), ": without changes ", tokenSpan(other), " over ", tokenSpan(same), ` by ${size(before)}`];
}

function note({ tokens, position }, { changes }) {
  const count = changes.length ? `${changes.length} change${changes.length > 1 ? "s" : ""}` : "no changes";
  return element("span", { id: "difference-note" }, "after ", tokenSpan(tokens[position].text), `, ${count}`);
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
