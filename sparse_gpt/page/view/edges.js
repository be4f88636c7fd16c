// What edges bring to the chosen token.

import { nodeKey } from "./dom.js";

// Weight times what the edge carries at the chosen token; from v, what attention gathers of it. `state` is the one that
// the view is of.
export function bring(view, state, edge, side, dHead) {
  const [layer, site, channel] = edge.from, values = carry(view, state, edge, side), at = view.position;
  if (site !== "attn_v") return edge.weight * values[at];
  const weights = view.heads[`${layer}.${Math.floor(channel / dHead)}`][side];
  let sum = 0;
  for (let s = 0; s <= at; s++) sum += weights[at * values.length + s] * values[s];
  return edge.weight * sum;
}

// Values (T) of its source, and of the source on the twin where the edge is patched.
function carry({ nodes, pairing }, { changes }, edge, side) {
  const { [side]: own, twin } = nodes[nodeKey(edge.from)];
  const patches = changes.filter((change) => isOf(change, edge) && [side, "both"].includes(change.where));
  if (!patches.length || !twin) return own;
  const isPatched = (t) => pairing[t] !== null && patches.some(({ at }) => at === null || at === t);
  return own.map((value, t) => (isPatched(t) ? twin[side][pairing[t]] : value));
}

// Whether a change is one of this edge.
export function isOf(change, { from, to }) {
  return change.kind === "edge" && nodeKey(change.from) === nodeKey(from) && nodeKey(change.to) === nodeKey(to);
}
