"""Taps that change what nodes do: ablate them, keep only a circuit, patch in another run, steer."""

from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.api.runs import Run
from sparse_gpt.circuits.circuit import Circuit
from sparse_gpt.model.taps import Tap
from sparse_gpt.parameters import Leaf
from sparse_gpt.records import Node

Nodes = Iterable[Node | tuple[int, str, int]]  # (layer, site, channel)


def ablate(nodes: "Nodes | Circuit", values: Mapping[str, np.ndarray] | None = None) -> Tap:
    """A tap that replaces nodes by constants at every token.

    Args:
        nodes: (layer, site, channel) each; or a circuit, for its nodes and its ablation values.
        values: site -> (n_layer, width), such as `Model.node_means()`; default: the circuit's, else zeros.

    Examples:
        >>> whole = model.run("x = 'hello")
        >>> without = model.run("x = 'hello", sg.ablate([(0, "mlp_out", 3)]), record=["mlp_out"])
        >>> float(abs(without["mlp_out", 0][..., 3]).max())
        0.0
    """
    if isinstance(nodes, Circuit) and values is None:
        values = nodes.values

    def constant(site: str, layer: int, channels: np.ndarray, x: jax.Array) -> Leaf:
        return 0.0 if values is None else jnp.asarray(values[site][layer][channels], x.dtype)

    return _at(nodes, constant)


def keep(circuit: Circuit) -> Tap:
    """A tap that replaces every node outside a circuit by its ablation value. Edges that were pruned still act: for
    losses of the circuit as it is, see `Model.evaluate`.

    Examples:
        >>> circuit = model.circuit("single_double_quote")
        >>> model.run("x = 'hello", sg.keep(circuit)).logits.shape[0]
        1
    """
    inside: dict[tuple[str, int], set[int]] = {}
    for node in circuit.nodes:
        inside.setdefault((node.site, node.layer), set()).add(node.channel)

    def tap(site: str, layer: int, x: jax.Array) -> jax.Array:
        if site not in circuit.values:
            return x
        opened = np.zeros(x.shape[-1], bool)
        opened[sorted(inside.get((site, layer), ()))] = True
        return jnp.where(opened, x, jnp.asarray(circuit.values[site][layer], x.dtype))

    return tap


def patch(nodes: "Nodes | Circuit", source: Run) -> Tap:
    """A tap that puts activations of another run in the place of nodes.

    Args:
        nodes: (layer, site, channel) each, or a circuit.
        source: a run on as many prompts of as many tokens, with these sites recorded.

    Examples:
        >>> other = model.run('x = "hello', record=["attn_out"])
        >>> patched = model.run("x = 'hello", sg.patch([(0, "attn_out", 5)], other), record=["attn_out"])
        >>> bool((patched["attn_out", 0][..., 5] == other["attn_out", 0][..., 5]).all())
        True
    """

    def other(site: str, layer: int, channels: np.ndarray, x: jax.Array) -> Leaf:
        return jnp.asarray(source[site, layer][..., channels], x.dtype)

    return _at(nodes, other)


def steer(nodes: "Nodes | Circuit", amount: float) -> Tap:
    """A tap that adds `amount` to nodes at every token.

    Examples:
        >>> plain = model.run("x = 'hello", record=["mlp_out"])
        >>> steered = model.run("x = 'hello", sg.steer([(2, "mlp_out", 3)], 2.5), record=["mlp_out"])
        >>> float((steered["mlp_out", 2] - plain["mlp_out", 2])[0, 0, 3])
        2.5
    """
    return _at(nodes, lambda site, layer, channels, x: x[..., channels] + amount)


def _at(nodes: "Nodes | Circuit", value: Callable[[str, int, np.ndarray, jax.Array], Leaf]) -> Tap:
    """A tap that puts ``value(site, layer, channels, x)`` in the place of nodes."""
    places: dict[tuple[str, int], list[int]] = {}
    for layer, site, channel in nodes.nodes if isinstance(nodes, Circuit) else nodes:
        places.setdefault((site, layer), []).append(channel)

    def tap(site: str, layer: int, x: jax.Array) -> jax.Array:
        if (site, layer) not in places:
            return x
        channels = np.array(places[site, layer])
        return x.at[..., channels].set(value(site, layer, channels, x))

    return tap
