// The forward pass of a model, or of a circuit in it. T positions; arrays are rows of channels, one row a position.

import { columnOf, NODE_SITES, SOURCES } from "./model.js";
import { absTopK, activate, normalize, relu } from "./numbers.js";

// Runs `tokens` through the model.
//
// options:
//   circuit: a Circuit, or null for the full model.
//   norms: reciprocal norms of another pass, which a circuit with frozen norms uses instead of its own.
//   changes: what is done to single nodes, edges and heads on the way, see Changes.
//   unchanged: the same pass without changes, if it is known: layers before the first change are taken from it.
// Returns { logitsAt: position -> logits (vocabulary), sites: site -> per layer (T, width), attention: per layer
//   (heads, T, T), norms: reciprocal norms (T) in the order of computation, streams: what each layer begins with }. Logits of a circuit are calibrated.
export function forward(model, tokens, { circuit = null, norms = null, changes = null, unchanged = null } = {}) {
  return new Pass(model, tokens, circuit, circuit?.frozen ? norms : null, changes).run(unchanged);
}

// nodes: [{ layer, site, channel, values }], values of every position, NaN where the node stays as it is.
// edges: [{ layer, source, from, target, to, values }]: the edge carries these values instead of its source's, but where
//   they are NaN.
// heads: [{ layer, head, weights }]: (T, T) attention weights instead of those that queries and keys give.
export class Changes {
  constructor({ nodes = [], edges = [], heads = [] } = {}) {
    Object.assign(this, { nodes, edges, heads });
  }

  get firstLayer() {
    return Math.min(...[...this.nodes, ...this.edges, ...this.heads].map(({ layer }) => layer));
  }

  at(kind, layer, site) {
    return this[kind].filter((change) => change.layer === layer && (!site || (change.site ?? change.target) === site));
  }
}

class Pass {
  constructor(model, tokens, circuit, frozen, changes) {
    Object.assign(this, { model, tokens, circuit, frozen, m: model.config, time: tokens.length });
    this.changes = changes ?? new Changes();
    this.layers = circuit ? circuit.layers : model.layers;
    this.sites = Object.fromEntries(NODE_SITES.map((site) => [site, []]));
    [this.attention, this.norms, this.streams] = [[], [], []];
  }

  run(unchanged) {
    const first = unchanged ? Math.min(this.changes.firstLayer, this.m.n_layer - 1) : 0;
    let h = first ? this.#taken(unchanged, first) : this.#embed();
    for (let layer = first; layer < this.m.n_layer; layer++) {
      this.streams[layer] = h;
      h = this.#added(h, this.#attend(h, layer), "resid_post_attn");
      h = this.#added(h, this.#neurons(h, layer), "resid_post_mlp");
    }
    const { norm } = this.m, index = this.norms.length;
    const { read, inverse } = normalize(h, this.m.d_model, norm, this.model.final_norm, this.frozen?.[index]);
    this.norms.push(inverse);
    const logitsAt = (position) => this.#unembed(read, position);
    return { logitsAt, sites: this.sites, attention: this.attention, norms: this.norms, streams: this.streams };
  }

  // What layer `first` begins with, and all before it, of another pass.
  #taken({ sites, attention, norms, streams }, first) {
    for (const site of NODE_SITES) this.sites[site] = sites[site].slice(0, first);
    [this.attention, this.norms, this.streams] = [attention.slice(0, first), norms.slice(0, 2 * first), streams.slice(0, first)];
    return streams[first];
  }

  #embed() {
    const { d_model: d, position } = this.m, h = new Float32Array(this.time * d);
    this.tokens.forEach((token, t) => {
      for (let i = 0; i < d; i++) {
        const own = position === "additive" ? this.model.positions[t * d + i] : 0;
        h[t * d + i] = this.model.embedding[token * d + i] + own;
      }
    });
    return h;
  }

  #added(h, delta, site) {
    const sum = new Float32Array(h.length);
    for (let i = 0; i < h.length; i++) sum[i] = h[i] + delta[i];
    if (this.m.residual_activation === "relu") relu(sum);
    absTopK(sum, this.m.d_model, this.model.kept(site, this.m.d_model));
    return sum;
  }

  // What a sublayer reads: the normalized stream and, behind it, the normalized position.
  #read(h, layer, site, norm, positionNorm) {
    const { d_model: d, d_position: p, norm: kind } = this.m, stride = d + p;
    const { read, inverse } = normalize(h, d, kind, norm, this.frozen?.[this.norms.length], stride);
    this.norms.push(inverse);
    if (p) {
      const own = normalize(this.model.positions.subarray(0, this.time * p), p, kind, positionNorm).read;
      for (let t = 0; t < this.time; t++) read.set(own.subarray(t * p, (t + 1) * p), t * stride + d);
    }
    return this.#node(site, layer, read);
  }

  // AbsTopK, then the circuit's gate, then what a person has changed.
  #node(site, layer, x) {
    const width = this.model.widths[site];
    absTopK(x, width, this.model.kept(site, width));
    if (this.circuit) {
      const open = this.circuit.open[site], ablation = this.circuit.ablation[site], first = layer * width;
      for (let i = 0; i < width; i++) {
        if (!open[first + i]) for (let t = 0; t < this.time; t++) x[t * width + i] = ablation[first + i];
      }
    }
    for (const { channel, values } of this.changes.at("nodes", layer, site)) {
      for (let t = 0; t < this.time; t++) if (!Number.isNaN(values[t])) x[t * width + channel] = values[t];
    }
    this.sites[site][layer] = x;
    return x;
  }

  #linear({ matrix, bias }, x) {
    const { rows, columns, starts, index, values } = matrix, y = new Float32Array(this.time * columns);
    const sum = new Float64Array(columns);
    for (let t = 0; t < this.time; t++) {
      if (bias) sum.set(bias);
      else sum.fill(0);
      for (let i = 0; i < rows; i++) {
        const value = x[t * rows + i];
        if (value !== 0) for (let p = starts[i]; p < starts[i + 1]; p++) sum[index[p]] += value * values[p];
      }
      y.set(sum, t * columns);
    }
    return y;
  }

  // Adds to y what changed edges into `site` carry more than their source does; `carried` makes it of a difference.
  #changeEdges(y, layer, site, x, carried = (difference) => difference) {
    const [source, part] = SOURCES[site], { matrix } = this.layers[layer][part];
    const width = this.model.widths[source];
    for (const { from, to, values } of this.changes.at("edges", layer, site)) {
      const column = columnOf(this.m, site, to), weight = matrix.at(from, column);
      const own = new Float64Array(this.time);
      for (let t = 0; t < this.time; t++) if (!Number.isNaN(values[t])) own[t] = values[t] - x[t * width + from];
      const difference = carried(own, from);
      for (let t = 0; t < this.time; t++) y[t * matrix.columns + column] += weight * difference[t];
    }
  }

  #attend(h, layer) {
    const parts = this.layers[layer], { n_head, d_head } = this.m, width = n_head * d_head, { time } = this;
    const read = this.#read(h, layer, "attn_in", parts.attention_norm, parts.position_norms?.[0]);
    const qkv = this.#linear(parts.query_key_value, read);
    const sites = ["attn_q", "attn_k", "attn_v"];
    for (const site of sites) this.#changeEdges(qkv, layer, site, read);
    const [q, k, v] = sites.map((site, part) => {
      const x = new Float32Array(time * width);
      for (let t = 0; t < time; t++) x.set(qkv.subarray((3 * t + part) * width, (3 * t + part + 1) * width), t * width);
      return this.#node(site, layer, x);
    });
    const weights = this.#attentionWeights(q, k, layer);
    const out = this.#linear(parts.attention_output, this.#mixed(weights, v));
    if (parts.carried) this.#carry(out, parts.carried, weights);
    this.#changeEdges(out, layer, "attn_out", v, (difference, from) =>
      this.#mix(weights, Math.floor(from / d_head), difference),
    );
    return this.#node("attn_out", layer, out);
  }

  // (heads, T, T): rows are queries; with a sink they sum to less than one.
  #attentionWeights(q, k, layer) {
    const { n_head, d_head } = this.m, width = n_head * d_head, { time } = this, { sink } = this.layers[layer];
    const weights = new Float32Array(n_head * time * time), scale = d_head ** -0.5, used = new Uint32Array(d_head);
    for (let head = 0; head < n_head; head++) {
      for (let t = 0; t < time; t++) {
        const row = weights.subarray((head * time + t) * time, (head * time + t) * time + t + 1);
        let count = 0; // AbsTopK leaves few channels of a query
        for (let c = head * d_head; c < (head + 1) * d_head; c++) if (q[t * width + c] !== 0) used[count++] = c;
        for (let s = 0; s <= t; s++) {
          let score = 0;
          for (let i = 0; i < count; i++) score += q[t * width + used[i]] * k[s * width + used[i]];
          row[s] = score * scale;
        }
        softmax(row, sink ? sink[head] : -Infinity);
      }
    }
    for (const { head, weights: given } of this.changes.at("heads", layer)) weights.set(given, head * time * time);
    return (this.attention[layer] = weights);
  }

  // All value channels, each through the attention of its head.
  #mixed(weights, v) {
    const { time } = this, { n_head, d_head } = this.m, width = n_head * d_head;
    const mixed = new Float32Array(time * width), sum = new Float64Array(d_head);
    for (let head = 0; head < n_head; head++) {
      for (let t = 0; t < time; t++) {
        const row = (head * time + t) * time;
        sum.fill(0);
        for (let s = 0; s <= t; s++) {
          const weight = weights[row + s], first = s * width + head * d_head;
          for (let c = 0; c < d_head; c++) sum[c] += weight * v[first + c];
        }
        mixed.set(sum, t * width + head * d_head);
      }
    }
    return mixed;
  }

  // Values (T) of one channel through the attention of its head.
  #mix(weights, head, values) {
    const { time } = this, result = new Float64Array(time);
    for (let t = 0; t < time; t++) {
      const row = (head * time + t) * time;
      let sum = 0;
      for (let s = 0; s <= t; s++) sum += weights[row + s] * values[s];
      result[t] = sum;
    }
    return result;
  }

  // What removed edges from v write, times the share of attention that the sink leaves.
  #carry(out, carried, weights) {
    const d = this.m.d_model, ones = new Float64Array(this.time).fill(1);
    for (let head = 0; head < this.m.n_head; head++) {
      const constant = carried.subarray(head * d, (head + 1) * d);
      if (!constant.some((value) => value !== 0)) continue;
      this.#mix(weights, head, ones).forEach((share, t) => {
        for (let i = 0; i < d; i++) out[t * d + i] += share * constant[i];
      });
    }
  }

  #neurons(h, layer) {
    const parts = this.layers[layer];
    const read = this.#read(h, layer, "mlp_in", parts.mlp_norm, parts.position_norms?.[1]);
    const hidden = this.#linear(parts.neurons, read);
    this.#changeEdges(hidden, layer, "mlp_neuron", read);
    activate(hidden, this.m.activation);
    this.#node("mlp_neuron", layer, hidden);
    const out = this.#linear(parts.mlp_output, hidden);
    this.#changeEdges(out, layer, "mlp_out", hidden);
    return this.#node("mlp_out", layer, out);
  }

  #unembed(read, t) {
    const { d_model: d, vocab_size: vocabulary } = this.m, { final_bias, bigram } = this.model;
    const { starts, index, values } = this.model.unembedding, sum = new Float64Array(vocabulary);
    if (final_bias) sum.set(final_bias);
    for (let i = 0; i < d; i++) {
      for (let p = starts[i]; p < starts[i + 1]; p++) sum[index[p]] += read[t * d + i] * values[p];
    }
    if (bigram) for (let j = 0, first = this.tokens[t] * vocabulary; j < vocabulary; j++) sum[j] += bigram[first + j];
    if (this.circuit) this.#calibrate(sum);
    return Float32Array.from(sum);
  }

  #calibrate(sum) {
    const { scale, shift } = this.circuit.calibration;
    for (let j = 0; j < sum.length; j++) sum[j] *= scale;
    for (const [token, value] of shift) sum[token] += value;
  }
}

// Scores to weights, in place; `sink` is one more score, in the denominator only.
function softmax(row, sink) {
  let top = sink, total = 0;
  for (let i = 0; i < row.length; i++) if (row[i] > top) top = row[i];
  for (let i = 0; i < row.length; i++) total += row[i] = Math.exp(row[i] - top);
  total += Math.exp(sink - top);
  for (let i = 0; i < row.length; i++) row[i] /= total;
}
