"""What nodes respond to in running text."""

import functools
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.config import NODE_SITES
from sparse_gpt.model import Params, Transformer
from sparse_gpt.model.taps import recorder
from sparse_gpt.records import Contexts, Node
from sparse_gpt.records.traces import Context, NodeContexts

SHOWN = 5  # contexts at either end, each from a window of its own
BEFORE, AFTER = 24, 6  # tokens shown around the one where the value stands


def contexts(
    model: Transformer,
    params: Params,
    nodes: Sequence[Node],
    windows: Iterable[np.ndarray],
    split: str,
    token_text: Callable[[int], str],
) -> Contexts:
    """Where each node has its largest and its smallest values, in the full model.

    Args:
      model: the whole model; nothing is gated.
      params: its weights.
      nodes: the nodes asked about.
      windows: batches of text, int (B, T), all of one shape.
      split: where they come from, as the file says.
      token_text: text of a token id.

    Returns:
      for every node its highest and its lowest `SHOWN` values, strongest first, each from
      a different window, with the tokens around.
    """
    batches = [np.asarray(batch, np.int32) for batch in windows]
    found = [jax.device_get(_extremes(model, params, batch)) for batch in batches]
    read = np.concatenate(batches)
    entries = []
    for node in nodes:

        def end(name: str, sign: int, node: Node = node) -> tuple[Context, ...]:
            seen = [part[node.site, name] for part in found]
            value, at = (np.concatenate([part[i][node.layer, :, node.channel] for part in seen]) for i in (0, 1))
            return _shown(sign * value, value, at, read, token_text)

        entries.append(NodeContexts(**node._asdict(), top=end("top", 1), bottom=end("bottom", -1)))
    return Contexts(split=split, tokens=int(read.size), nodes=tuple(entries))


@functools.partial(jax.jit, static_argnums=0)
def _extremes(
    model: Transformer, params: Params, tokens: jax.Array
) -> dict[tuple[str, str], tuple[jax.Array, jax.Array]]:
    """(site, "top" or "bottom") -> (value, position) of each window's extreme, (n_layer, B, width) each.

    Of all nodes, so that one program serves every circuit.
    """
    store: dict[tuple[str, int], jax.Array] = {}
    model.apply({"params": params}, tokens, tap=recorder(store, NODE_SITES))
    found = {}
    for site in NODE_SITES:
        values = jnp.stack([store[site, layer] for layer in range(model.config.n_layer)])  # (n_layer, B, T, width)
        found[site, "top"] = jnp.max(values, axis=2), jnp.argmax(values, axis=2)
        found[site, "bottom"] = jnp.min(values, axis=2), jnp.argmin(values, axis=2)
    return found


def _shown(
    order: np.ndarray, value: np.ndarray, at: np.ndarray, read: np.ndarray, token_text: Callable[[int], str]
) -> tuple[Context, ...]:
    """The windows of largest `order`, without repetitions of the same text."""
    shown: dict[tuple[int, ...], Context] = {}
    for row in np.argsort(-order, kind="stable"):
        first, last = max(0, int(at[row]) - BEFORE), int(at[row]) + AFTER + 1
        tokens = tuple(int(token) for token in read[row, first:last])
        if tokens not in shown:
            texts = tuple(token_text(token) for token in tokens)
            number = float(f"{np.nan_to_num(value[row]):.5g}")
            shown[tokens] = Context(tokens=texts, at=int(at[row]) - first, value=number)
        if len(shown) == SHOWN:
            break
    return tuple(shown.values())
