// Attention of the heads that have a node in the circuit.

import { byId, element, percent, SIDES } from "./dom.js";

const LISTED = 4; // tokens that a head looks at most

export class HeadsView {
  constructor(data, store) {
    Object.assign(this, { data, store });
  }

  show(view, state) {
    const keys = Object.keys(view.heads);
    byId("heads").replaceChildren(...keys.map((key) => this.#head(key, view, state)));
    if (!keys.length) byId("heads").append("No head has a node in this circuit.");
  }

  #head(key, view, state) {
    const [layer, head] = key.split(".").map(Number), { d_head } = this.data;
    const own = this.data.record.nodes.filter((n) => n.layer === layer && /^attn_[qkv]$/.test(n.site) && Math.floor(n.channel / d_head) === head);
    const parts = own.map(({ site, channel }) =>
      element("button", { type: "button", on: { click: () => this.store.set({ node: `${layer}.${site}.${channel}` }) } }, `${site.slice(-1)} ${channel}`),
    );
    const title = `Layer ${layer}, head ${head}`;
    const maps = Object.entries(SIDES).map(([side, name]) => map(view, key, side, name, title, (t) => this.store.set({ position: t })));
    const told = Object.entries(SIDES).map(([side, name]) => looksAt(view, key, side, name));
    return element("article", { class: "head" }, element("h3", {}, title), element("div", { class: "maps" }, ...maps), ...told, element("div", { class: "row" }, "Nodes: ", ...parts), this.#copy(layer, head, view, state));
  }

  #copy(layer, head, view, state) {
    const same = (change) => change.kind === "head" && change.layer === layer && change.head === head;
    const copied = state.changes.some(same), fits = view.twin?.length === view.tokens.length;
    const click = () => this.store.change(copied ? null : { kind: "head", layer, head, where: "both", at: null }, same);
    const text = copied ? "As computed again" : "Copy the twin’s attention";
    const title = fits || copied ? "" : "The twin must have as many tokens as the prompt.";
    return element("button", { type: "button", disabled: !fits && !copied, title, on: { click }, "aria-label": `${text}, layer ${layer} head ${head}` }, text);
  }
}

// What the chosen token's query looks at, strongest first.
function looksAt(view, key, side, name) {
  const weights = view.heads[key][side], time = view.tokens.length, row = weights.slice(view.position * time, view.position * time + view.position + 1);
  const order = Array.from(row.keys()).sort((a, b) => row[b] - row[a] || a - b).slice(0, LISTED);
  const left = 1 - row.reduce((sum, weight) => sum + weight, 0);
  const made = element("p", {}, `In the ${name} `, element("span", { class: "token chosen" }, view.tokens[view.position].text), " looks at ");
  for (const t of order.filter((t) => row[t] >= 0.005)) made.append(element("span", { class: "token" }, view.tokens[t].text), ` ${percent(row[t])} (${t}), `);
  made.append(left > 0.0005 ? `nowhere ${percent(left)}` : "nothing else");
  return made;
}

// A square of T x T weights; rows are queries, the chosen one is framed. A click chooses a row.
function map(view, key, side, name, title, choose) {
  const time = view.tokens.length, weights = view.heads[key][side];
  const canvas = element("canvas", { width: time, height: time, role: "img", "aria-label": `${title}, attention in the ${name}; the text below says what it looks at` });
  const context = canvas.getContext("2d"), image = context.createImageData(time, time);
  const rgb = matchMedia("(prefers-color-scheme: dark)").matches ? [108, 176, 255] : [31, 102, 193];
  for (let i = 0; i < time * time; i++) {
    const chosen = Math.floor(i / time) === view.position;
    image.data.set([...rgb, Math.round(255 * Math.min(1, weights[i] + (chosen && i % time <= view.position ? 0.08 : 0)))], 4 * i);
  }
  context.putImageData(image, 0, 0);
  canvas.addEventListener("click", (event) => choose(Math.min(time - 1, Math.floor((event.offsetY / canvas.clientHeight) * time))));
  return element("figure", {}, canvas, element("figcaption", {}, `${name}: rows look at columns`));
}
