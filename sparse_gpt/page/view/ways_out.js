// The drawing as SVG and PNG; nodes and edges, with what they are now, as CSV.

import { nodeKey, nodeOfKey } from "./dom.js";
import { csv, drawingImage, drawingText, save } from "./download.js";
import { bring } from "./edges.js";

export class WaysOut {
  constructor(page) {
    Object.assign(this, page);
    const { find, data } = page, task = data.file, svg = () => find("drawing").querySelector("svg");
    const table = (rows) => new Blob([csv(rows)], { type: "text/csv" });
    const ways = {
      "save-svg": () => save(`${task}.svg`, new Blob([drawingText(svg())], { type: "image/svg+xml" })),
      "save-png": async () => save(`${task}.png`, await drawingImage(svg())),
      "save-nodes": () => save(`${task}_nodes.csv`, table(this.nodeRows())),
      "save-edges": () => save(`${task}_edges.csv`, table(this.edgeRows())),
    };
    for (const [id, way] of Object.entries(ways)) find(id).addEventListener("click", way);
  }

  show(view, state) {
    Object.assign(this, { view, state });
  }

  // Every node with its names, its values at the chosen token and, once they are computed, what switching it off does.
  nodeRows() {
    const { names } = this.store.state, { position, nodes } = this.view, effects = this.ranking.all;
    const titles = ["id", "layer", "site", "channel", "label", "group", "position", "circuit", "full_model"];
    if (effects) titles.push("off_circuit", "off_full_model");
    const rows = [...this.data.keys].map((key) => {
      const { circuit, full } = nodes[key];
      return [key, ...nodeOfKey(key), names.labels[key], names.groups[key], position, circuit[position], full[position], ...ofNode(effects, key)];
    });
    return [titles, ...rows];
  }

  // Every edge with what it brings to the chosen token.
  edgeRows() {
    const titles = ["source", "target", "weight", "position", "brings_circuit", "brings_full_model"];
    const rows = this.data.record.edges.map((edge) => {
      const brings = (side) => bring(this.view, this.state, edge, side, this.data.d_head);
      return [nodeKey(edge.from), nodeKey(edge.to), edge.weight, this.view.position, brings("circuit"), brings("full")];
    });
    return [titles, ...rows];
  }
}

function ofNode(effects, key) {
  const effect = effects?.get(key);
  return effect ? [effect.circuit, effect.full] : [];
}
