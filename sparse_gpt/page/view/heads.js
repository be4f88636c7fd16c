// Attention of the heads that have a node in the circuit.

import { button, element, largest, percent, replaceInside, SIDES, signed, tint, tokenSpan } from "./dom.js";

const LISTED = 4; // tokens that a head looks at most
const FLAT = 1e-6; // covariance of attention and keys that says nothing
const LEAST = 0.005, NAMED = 0.0005; // of its attention: what a token needs, and what is left

export class HeadsView {
  constructor(page) {
    Object.assign(this, page);
  }

  show(view, state) {
    const keys = Object.keys(view.heads);
    replaceInside(this.find("heads"), this.active(), ...keys.map((key) => this.#head(key, view, state)));
    if (!keys.length) this.find("heads").append("No head has a node in this circuit.");
  }

  #head(key, view, state) {
    const [layer, head] = key.split(".").map(Number), title = `Layer ${layer}, head ${head}`;
    const patched = state.changes.some((change) => change.kind === "head" && change.layer === layer && change.head === head);
    const choose = (position) => this.store.set({ position });
    const maps = Object.keys(SIDES).map((side) => attentionMap(view, key, side, title, choose));
    return element(
      "article",
      { class: "head" },
      element("h3", {}, patched ? `${title}, patched from the twin` : title),
      element("div", { class: "maps" }, ...maps),
      ...Object.keys(SIDES).map((side) => looksAt(view, key, side)),
      this.#constant(layer, head),
      this.#single(layer, head, view),
      element("div", { class: "row" }, "Nodes: ", ...this.#nodes(layer, head)),
      this.#copy(layer, head, view, state),
    );
  }

  #own(layer, head) {
    const isOwn = ({ layer: l, site, channel }) =>
      l === layer && /^attn_[qkv]$/.test(site) && Math.floor(channel / this.data.d_head) === head;
    return this.data.record.nodes.filter(isOwn);
  }

  #nodes(layer, head) {
    return this.#own(layer, head).map(({ site, channel }) => {
      const node = `${layer}.${site}.${channel}`;
      return button(`${site.slice(-1)} ${channel}`, () => this.store.set({ node }), { "data-key": node });
    });
  }

  // What stays as it is whatever the prompt: queries or keys of which the circuit has no channel.
  #constant(layer, head) {
    const own = new Set(this.#own(layer, head).map(({ site }) => site));
    const names = Object.entries({ attn_q: "query", attn_k: "key" }).filter(([site]) => !own.has(site)).map(([, name]) => name);
    if (!names.length) return null;
    const are = names.length > 1 ? "its queries and keys are constant" : `its ${names[0]} is constant`;
    return element("p", {}, `The circuit has no ${names.join(" and no ")} channel of this head: in it ${are}, the same at every token.`);
  }

  // Where one query or key channel is all that the circuit has of a head's, attention is what that channel does: its values.
  #single(layer, head, view) {
    const decides = this.#own(layer, head).filter(({ site }) => site !== "attn_v"), sites = new Set(decides.map(({ site }) => site));
    if (!decides.length || sites.size !== decides.length) return null;
    const strips = decides.map(({ site, channel }) => {
      const { circuit } = view.nodes[`${layer}.${site}.${channel}`], scale = largest(circuit);
      const spans = view.tokens.map(({ text }, t) => {
        const token = tokenSpan(text, t === view.position ? "chosen" : "", { title: `${t}: ${signed(circuit[t])}` });
        tint(token, circuit[t], scale);
        return token;
      });
      const name = { attn_q: "query", attn_k: "key" }[site];
      const about = `its one ${name} channel, ${channel}, from ${signed(Math.min(...circuit))} to ${signed(Math.max(...circuit))}${this.#preference(site, layer, head, circuit, view)}`;
      return element("div", { class: "strip tokens" }, element("b", {}, about), ...spans);
    });
    return element("div", {}, ...strips);
  }

  // Which keys are looked at more, where the query is the same for all of them.
  #preference(site, layer, head, values, view) {
    if (site !== "attn_k") return "";
    const time = view.tokens.length, row = view.heads[`${layer}.${head}`].circuit.slice(view.position * time, view.position * time + view.position + 1);
    const mean = (list) => list.reduce((total, value) => total + value, 0) / list.length, own = values.slice(0, row.length);
    const along = mean(row.map((weight, t) => weight * own[t])) - mean(row) * mean(own);
    return Math.abs(along) < FLAT ? "" : `: the ${along > 0 ? "larger" : "smaller"}, the more it is looked at`;
  }

  #copy(layer, head, view, state) {
    const same = (change) => change.kind === "head" && change.layer === layer && change.head === head;
    const copied = state.changes.some(same), fits = view.twin?.length === view.tokens.length;
    const click = () => this.store.change(copied ? null : { kind: "head", layer, head, where: "both", at: null }, same);
    const text = copied ? "As computed again" : "Patch attention from the twin, in circuit and model", possible = fits || copied;
    const about = { disabled: !possible, "aria-label": `${text}, layer ${layer} head ${head}`, "data-key": `${layer}.${head}` };
    const counts = view.twin ? `it has ${view.twin.length} tokens, the prompt ${view.tokens.length}` : "there is none";
    const why = possible ? null : element("span", { class: "faint" }, `To patch from it, the twin must be as long: ${counts}.`);
    return element("div", { class: "row copy" }, button(text, click, about), why);
  }
}

// What the chosen token's query looks at, strongest first.
function looksAt(view, key, side) {
  const time = view.tokens.length, first = view.position * time;
  const row = view.heads[key][side].slice(first, first + view.position + 1);
  const order = Array.from(row.keys()).sort((a, b) => row[b] - row[a] || a - b);
  const made = element("p", {}, `In the ${SIDES[side]} `, tokenSpan(view.tokens[view.position].text, "chosen"), " looks at ");
  const listed = order.slice(0, LISTED).filter((t) => row[t] >= LEAST), sum = (of) => of.reduce((total, t) => total + row[t], 0);
  const others = sum(order) - sum(listed), sink = 1 - sum(order);
  const parts = listed.map((t) => [tokenSpan(view.tokens[t].text), ` ${percent(row[t])} (${t})`]);
  if (others > NAMED) parts.push([`others ${percent(others)}`]);
  if (sink > NAMED) parts.push([`the sink ${percent(sink)}`]);
  made.append(...parts.flatMap((part, i) => (i ? [", ", ...part] : part)), ".");
  return made;
}

// A square of T x T weights; rows are queries, the chosen one is shaded. A click chooses a row.
function attentionMap(view, key, side, title, choose) {
  const time = view.tokens.length, weights = view.heads[key][side], name = SIDES[side];
  const label = `${title}, attention in the ${name}; the text below says what it looks at`;
  const canvas = element("canvas", { width: time, height: time, role: "img", "aria-label": label });
  const context = canvas.getContext("2d"), image = context.createImageData(time, time);
  const color = matchMedia("(prefers-color-scheme: dark)").matches ? [108, 176, 255] : [31, 102, 193];
  for (let i = 0; i < time * time; i++) {
    const row = Math.floor(i / time), shade = row === view.position && i % time <= row ? 0.08 : 0;
    image.data.set([...color, Math.round(255 * Math.min(1, weights[i] + shade))], 4 * i);
  }
  context.putImageData(image, 0, 0);
  canvas.addEventListener("click", ({ offsetY }) => {
    choose(Math.min(time - 1, Math.floor((offsetY / canvas.clientHeight) * time)));
  });
  const axis = (kind, text) => element("span", { class: kind, "aria-hidden": "true" }, text);
  const map = element("div", { class: "map" }, axis("across", "is looked at →"), axis("down", "looks →"), canvas);
  return element("figure", {}, element("figcaption", {}, name), map);
}
