// What the page asks of a model and its circuit: two prompts, changes that a person has made, one position.

import { Changes, forward } from "./forward.js";
import { Circuit, Model } from "./model.js";
import { Tensors } from "./tensors.js";
import { Tokenizer } from "./tokenizer.js";

const SHOWN = 8, MOVED = 5; // predicted tokens; logits that a node moves
const SIDES = ["circuit", "full"];

// A problem with what a person gave, as one line for the page.
export class InputProblem extends Error {}

export class Session {
  // record: what circuit.json holds; packed: bytes of the model's file.
  static open(record, packed) {
    const tensors = new Tensors(packed), session = new Session();
    session.model = new Model(tensors);
    session.record = record;
    session.circuit = new Circuit(session.model, record, tensors);
    session.tokenizer = new Tokenizer(tensors.header.vocabulary, tensors.header.special);
    session.plain = new Map(); // unchanged passes of the last prompts
    session.others = { key: "", now: null }; // passes with the last question's other changes
    return session;
  }

  // Token ids of a prompt. InputProblem if the model cannot take it.
  encode(text, what) {
    const { context, vocab_size } = this.model.config;
    const most = context * this.tokenizer.longest; // no text of more bytes can have so few tokens
    if (text.length > most) {
      throw new InputProblem(`The ${what} has more than ${context} tokens, all that the model sees at once; shorten it.`);
    }
    const ids = this.tokenizer.encode(text);
    if (!ids.length) throw new InputProblem(`The ${what} is empty; write something, or pick a sample.`);
    if (ids.length > context) {
      const over = ids.length - context;
      throw new InputProblem(`The ${what} has ${ids.length} tokens, the model sees ${context} at once; shorten it by ${over}.`);
    }
    if (ids.some((id) => id >= vocab_size)) {
      throw new InputProblem(`The ${what} has a token that the model's vocabulary of ${vocab_size} entries does not have.`);
    }
    return ids;
  }

  // Everything that the page shows of a state { prompt, twin, changes, position, answer, foil }.
  look({ prompt, twin, changes, position, answer, foil }) {
    const start = performance.now(), at = this.#place(prompt, twin, position), { tokens, other, pairing, own, twins } = at;
    const now = this.#changed(at, changes), bySide = (make) => Object.fromEntries(SIDES.map((side) => [side, make(side)]));
    const difference = (pass) => logitDifference(pass, at.position, answer, foil);
    return {
      tokens: this.#named(tokens),
      twin: other && this.#named(other),
      pairing,
      notice: at.notice,
      position: at.position,
      predictions: bySide((side) => this.#predictions(now[side].logitsAt(at.position), answer, foil)),
      differences: bySide((side) => ({ now: difference(now[side]), before: difference(own[side]) })),
      decided: twins && [[own, tokens], [twins, other]].map(([{ full }, { length }]) => logitDifference(full, length - 1, answer, foil)),
      nodes: this.#nodeValues(now, twins),
      heads: this.#heads(now),
      milliseconds: performance.now() - start,
    };
  }

  // Of each side, what `node` does on top of the other changes, its own left aside: the logit difference with it and when
  // it is switched off at every token, and, asked for, the logits that it moves most: those with it minus those without.
  withoutNode({ prompt, twin, changes, position, answer, foil }, node, logits = true) {
    const at = this.#place(prompt, twin, position), others = changes.filter((change) => !sameNode(change, node));
    const off = this.#changed(at, [...others, { kind: "off", node, where: "both", at: null }]);
    const key = JSON.stringify([prompt, twin, others]);
    if (this.others.key !== key) this.others = { key, now: this.#changed(at, others) };
    const { now } = this.others, difference = (pass) => logitDifference(pass, at.position, answer, foil);
    const effect = (side) => ({
      before: difference(now[side]),
      difference: difference(off[side]),
      ...(logits && { moved: this.#moved(now[side].logitsAt(at.position), off[side].logitsAt(at.position)) }),
    });
    return Object.fromEntries(SIDES.map((side) => [side, effect(side)]));
  }

  // What circuit and model decide after the last token, with the changes: the logit difference of each side, and whether
  // patches are not among them, for want of a twin that they can come from.
  decide({ prompt, twin, changes, answer, foil }) {
    const patches = changes.some(({ kind }) => ["patch", "edge", "head"].includes(kind));
    const at = this.#place(prompt, patches ? twin : "", null), now = this.#changed(at, changes);
    const isEqual = at.other?.length === at.tokens.length, fits = isEqual || (at.other && !changes.some(({ kind }) => kind === "head"));
    const differences = SIDES.map((side) => [side, logitDifference(now[side], at.position, answer, foil)]);
    return { ...Object.fromEntries(differences), unpatched: patches && !fits };
  }

  #place(prompt, twin, position) {
    const tokens = this.encode(prompt, "prompt"), { other, notice } = this.#twin(twin);
    return {
      ...{ tokens, other, notice, pairing: other && alignment(tokens, other) },
      ...{ own: this.#unchanged(tokens), twins: other && this.#unchanged(other) },
      position: position === null || position >= tokens.length ? tokens.length - 1 : position,
    };
  }

  // What is wrong with the twin does not hide the prompt: it is a notice, and there is no twin then.
  #twin(text) {
    try {
      return { other: text ? this.encode(text, "twin") : null, notice: "" };
    } catch (error) {
      if (!(error instanceof InputProblem)) throw error;
      return { other: null, notice: error.message };
    }
  }

  #moved(logits, without) {
    const by = logits.map((logit, id) => logit - without[id]);
    const order = Array.from(by.keys()).sort((a, b) => Math.abs(by[b]) - Math.abs(by[a]) || a - b);
    return order.slice(0, MOVED).map((id) => ({ text: this.tokenizer.show(id), by: by[id] }));
  }

  #named(tokens) {
    return tokens.map((id) => ({ id, text: this.tokenizer.show(id) }));
  }

  // Both sides without changes, kept for the next question.
  #unchanged(tokens) {
    const key = tokens.join();
    if (!this.plain.has(key)) {
      const full = forward(this.model, tokens);
      const circuit = forward(this.model, tokens, { circuit: this.circuit, norms: full.norms });
      if (this.plain.size > 3) this.plain.delete(this.plain.keys().next().value);
      this.plain.set(key, { full, circuit });
    }
    return this.plain.get(key);
  }

  #changed({ tokens, own, twins, pairing }, changes) {
    const pass = (side) => {
      const mine = changes.filter((change) => change.where === side || change.where === "both");
      if (!mine.length) return own[side];
      const circuit = side === "circuit" ? this.circuit : null;
      const resolved = new Changes(this.#resolve(mine, side, tokens.length, { twins, pairing }));
      return forward(this.model, tokens, { circuit, norms: own.full.norms, changes: resolved, unchanged: own[side] });
    };
    return { full: pass("full"), circuit: pass("circuit") };
  }

  // Changes as the forward pass takes them: with a value for every position, NaN where nothing changes.
  #resolve(changes, side, time, { twins, pairing }) {
    const resolved = { nodes: [], edges: [], heads: [] };
    for (const change of changes) {
      const [layer, site, channel] = change.node ?? change.from ?? [];
      if (change.kind === "head") {
        const weights = twins && patternOf(twins[side], change, time);
        if (weights) resolved.heads.push({ layer: change.layer, head: change.head, weights });
        continue;
      }
      const ofTwin = (t) => {
        const there = pairing ? pairing[t] : null;
        return there === null ? NaN : this.#value(twins[side], [layer, site, channel], there);
      };
      const off = this.ablationValue([layer, site, channel]);
      const value = { set: () => change.value, off: () => off, patch: ofTwin, edge: ofTwin }[change.kind];
      const isMeant = (t) => change.at === null || change.at === t;
      const values = Float64Array.from({ length: time }, (_, t) => (isMeant(t) ? value(t) : NaN));
      if (change.kind === "edge") {
        resolved.edges.push({ layer, source: site, from: channel, target: change.to[1], to: change.to[2], values });
      } else resolved.nodes.push({ layer, site, channel, values });
    }
    return resolved;
  }

  ablationValue([layer, site, channel]) {
    return this.circuit.ablation[site][layer * this.model.widths[site] + channel];
  }

  #value(pass, [layer, site, channel], t) {
    return pass.sites[site][layer][t * this.model.widths[site] + channel];
  }

  #column(pass, [layer, site, channel]) {
    const width = this.model.widths[site], x = pass.sites[site][layer], column = new Float32Array(x.length / width);
    for (let t = 0; t < column.length; t++) column[t] = x[t * width + channel];
    return column;
  }

  #nodeValues(now, twins) {
    const found = {};
    for (const { layer, site, channel } of this.record.nodes) {
      const node = [layer, site, channel];
      found[node.join(".")] = {
        circuit: this.#column(now.circuit, node),
        full: this.#column(now.full, node),
        twin: twins && { circuit: this.#column(twins.circuit, node), full: this.#column(twins.full, node) },
        off: this.ablationValue(node),
      };
    }
    return found;
  }

  // Attention of every head with a node in the circuit.
  #heads(now) {
    const { d_head } = this.model.config, found = {};
    for (const { layer, site, channel } of this.record.nodes) {
      if (!["attn_q", "attn_k", "attn_v"].includes(site)) continue;
      const head = Math.floor(channel / d_head), key = `${layer}.${head}`;
      found[key] ??= Object.fromEntries(SIDES.map((side) => [side, patternOf(now[side], { layer, head })]));
    }
    return found;
  }

  // The likeliest tokens, and answer and foil wherever they stand.
  #predictions(logits, answer, foil) {
    let top = -Infinity, total = 0;
    for (const logit of logits) top = Math.max(top, logit);
    for (const logit of logits) total += Math.exp(logit - top);
    const row = (id) => ({ id, text: this.tokenizer.show(id), probability: Math.exp(logits[id] - top) / total });
    const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
    const shown = order.slice(0, SHOWN);
    for (const id of [answer, foil]) if (id !== null && !shown.includes(id)) shown.push(id);
    return shown.map(row);
  }
}

function logitDifference(pass, position, answer, foil) {
  if (answer === null) return null;
  const logits = pass.logitsAt(position);
  return logits[answer] - logits[foil];
}

function sameNode(change, node) {
  return Boolean(change.node) && change.node.join() === node.join();
}

// (T, T) weights of one head; null if the pass had another number of tokens than `time`.
function patternOf(pass, { layer, head }, time) {
  const weights = pass.attention[layer], length = pass.norms[0].length;
  if (time !== undefined && time !== length) return null;
  return weights.slice(head * length * length, (head + 1) * length * length);
}

// For every position the twin's position that stands for it: counted from the start up to where the prompts first
// differ, from the end after that. Null where there is none.
function alignment(tokens, other) {
  if (tokens.length === other.length) return tokens.map((_, t) => t);
  let same = 0;
  while (same < Math.min(tokens.length, other.length) && tokens[same] === other[same]) same++;
  return tokens.map((_, t) => {
    if (t < same) return t;
    const fromEnd = other.length - (tokens.length - t);
    return fromEnd >= same ? fromEnd : null;
  });
}
