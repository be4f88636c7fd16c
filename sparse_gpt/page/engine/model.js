// The weights of a model, arranged for the forward pass. Names are those of the parameter tree.

export const NODE_SITES = ["attn_in", "attn_q", "attn_k", "attn_v", "attn_out", "mlp_in", "mlp_neuron", "mlp_out"];

// Which matrix leads to a site: the site it reads, and the part of a layer.
export const SOURCES = {
  attn_q: ["attn_in", "query_key_value"],
  attn_k: ["attn_in", "query_key_value"],
  attn_v: ["attn_in", "query_key_value"],
  attn_out: ["attn_v", "attention_output"],
  mlp_neuron: ["mlp_in", "neurons"],
  mlp_out: ["mlp_neuron", "mlp_output"],
};

export function siteWidths(m) {
  const read = m.d_model + m.d_position, heads = m.n_head * m.d_head;
  return {
    ...{ attn_in: read, attn_q: heads, attn_k: heads, attn_v: heads, attn_out: m.d_model },
    ...{ mlp_in: read, mlp_neuron: m.d_mlp, mlp_out: m.d_model },
  };
}

// Column of a channel in the matrix that leads to its site: q, k and v lie side by side.
export function columnOf(m, site, channel) {
  return channel + Math.max(0, ["attn_q", "attn_k", "attn_v"].indexOf(site)) * m.n_head * m.d_head;
}

export class Model {
  constructor(tensors) {
    const m = (this.config = tensors.header.config);
    const norm = (name) => ({ scale: tensors.dense(`${name}/scale`), bias: optional(tensors, `${name}/bias`) });
    const linear = (name) => ({ matrix: tensors.matrix(`${name}/kernel`), bias: optional(tensors, `${name}/bias`) });
    this.widths = siteWidths(m);
    this.embedding = tensors.dense("wte");
    this.positions = optional(tensors, "wpe");
    this.layers = Array.from({ length: m.n_layer }, (_, i) => ({
      attention_norm: norm(`h_${i}/ln_1`),
      query_key_value: linear(`h_${i}/attn/c_attn`),
      sink: optional(tensors, `h_${i}/attn/sink`),
      attention_output: linear(`h_${i}/attn/c_proj`),
      mlp_norm: norm(`h_${i}/ln_2`),
      neurons: linear(`h_${i}/mlp/c_fc`),
      mlp_output: linear(`h_${i}/mlp/c_proj`),
      position_norms: m.d_position ? [norm(`h_${i}/ln_p1`), norm(`h_${i}/ln_p2`)] : null,
    }));
    this.final_norm = norm("ln_f");
    this.unembedding = m.tied ? tensors.matrix("wte").transposed() : tensors.matrix("lm_head");
    this.final_bias = optional(tensors, "final_logits_bias");
    this.bigram = optional(tensors, "bigram");
  }

  // How many channels AbsTopK keeps at a site; Infinity where it does not act.
  kept(site, width) {
    const m = this.config;
    return m.activation_sites.includes(site) ? Math.floor(m.activation_fraction * width) : Infinity;
  }
}

function optional(tensors, name) {
  return tensors.has(name) ? tensors.dense(name) : null;
}

// A circuit laid over a model: which nodes are closed and what they are then, and layers without the removed edges.
//
// A removed edge carries its source's ablation value, which is a constant: it goes into the bias. From v to attn_out it
// passes through attention and comes out times the share of attention that the sink leaves; `carried` has, for every
// head, what its removed edges write where attention is whole.
export class Circuit {
  // record: what circuit.json holds, and where there are several circuits what its ablation values are called; tensors:
  // with the ablation values (n_layer, width) of every site.
  constructor(model, record, tensors) {
    const m = model.config;
    this.calibration = record.calibration;
    this.frozen = record.norm === "frozen";
    this.open = Object.fromEntries(NODE_SITES.map((site) => [site, new Uint8Array(m.n_layer * model.widths[site])]));
    for (const { layer, site, channel } of record.nodes) this.open[site][layer * model.widths[site] + channel] = 1;
    this.ablation = Object.fromEntries(NODE_SITES.map((site) => [site, tensors.dense(`${record.values ?? "ablation"}/${site}`)]));
    const kept = new Set(record.edges.map(({ from, to }) => edgeKey(from[0], from[1], from[2], to[1], to[2])));
    this.layers = model.layers.map((parts, layer) => {
      const result = { ...parts, carried: null };
      if (!record.edge_pruned) return result;
      const removal = new Removal(this, model, layer, kept);
      for (const part of ["query_key_value", "neurons", "mlp_output"]) result[part] = removal.folded(part);
      [result.attention_output, result.carried] = removal.carried();
      return result;
    });
  }

  isOpen(layer, site, channel) {
    return this.open[site][(layer * this.open[site].length) / this.layers.length + channel] === 1;
  }
}

function edgeKey(layer, source, from, target, to) {
  return `${layer}.${source}.${from}.${target}.${to}`;
}

// Takes the edges that a circuit does not keep out of one layer.
class Removal {
  constructor(circuit, model, layer, kept) {
    Object.assign(this, { circuit, model, layer, kept });
  }

  // Calls found(place among the values, input, output column) for every removed edge of a part.
  *#removed(part) {
    const { model, circuit, layer, kept } = this, { matrix } = model.layers[layer][part];
    for (const [target, [source, owner]] of Object.entries(SOURCES)) {
      if (owner !== part) continue;
      const width = model.widths[source], targets = model.widths[target], first = columnOf(model.config, target, 0);
      for (let i = 0; i < matrix.rows; i++) {
        if (!circuit.open[source][layer * width + i]) continue;
        for (let p = matrix.starts[i]; p < matrix.starts[i + 1]; p++) {
          const j = matrix.index[p] - first;
          if (j < 0 || j >= targets || !circuit.open[target][layer * targets + j]) continue;
          if (!kept.has(edgeKey(layer, source, i, target, j))) yield [p, i, matrix.index[p], source];
        }
      }
    }
  }

  folded(part) {
    const { matrix, bias } = this.model.layers[this.layer][part];
    const values = matrix.values.slice(), constant = Float64Array.from(bias ?? new Float32Array(matrix.columns));
    for (const [p, i, j, source] of this.#removed(part)) {
      constant[j] += this.#ablation(source, i) * values[p];
      values[p] = 0;
    }
    return { matrix: matrix.withValues(values), bias: Float32Array.from(constant) };
  }

  carried() {
    const { matrix, bias } = this.model.layers[this.layer].attention_output, { d_head, n_head } = this.model.config;
    const values = matrix.values.slice(), heads = new Float64Array(n_head * matrix.columns);
    for (const [p, i, j] of this.#removed("attention_output")) {
      heads[Math.floor(i / d_head) * matrix.columns + j] += this.#ablation("attn_v", i) * values[p];
      values[p] = 0;
    }
    return [{ matrix: matrix.withValues(values), bias }, heads];
  }

  #ablation(site, channel) {
    return this.circuit.ablation[site][this.layer * this.model.widths[site] + channel];
  }
}
