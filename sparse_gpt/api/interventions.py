"""Taps that change what nodes do: ablate them, keep only a circuit, patch in another run, steer."""

import dataclasses
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from sparse_gpt.api.given import AnyCircuit, circuit_or, require_circuit
from sparse_gpt.api.runs import Run
from sparse_gpt.circuits.circuit import Circuit
from sparse_gpt.config import NODE_SITES, ModelConfig
from sparse_gpt.errors import InputError
from sparse_gpt.model.taps import AFTER_LAYERS, OBSERVED, Tap
from sparse_gpt.parameters import Leaf
from sparse_gpt.records import Node

Nodes = Iterable[Node | tuple[int, str, int] | str]  # (layer, site, channel), or "layer.site.channel"


@dataclasses.dataclass(frozen=True)
class NodeTap:
    """A tap that knows what it changes: a tap is not called for a layer that the model does not have, so that a run
    must compare its nodes with the model.

    Attributes:
        tap: what it does.
        nodes: that it changes, or that its circuit holds.
        circuit: that they were given as.
    """

    tap: Tap
    nodes: tuple[Node, ...]
    circuit: Circuit | None = None

    def __call__(self, site: str, layer: int, x: jax.Array) -> jax.Array:
        return self.tap(site, layer, x)

    def require_fit(self, model: ModelConfig) -> None:
        """InputError if the circuit does not fit, or a node is in a layer that the model does not have."""
        if self.circuit is not None:
            self.circuit.require_fit(model)
        for node in self.nodes:
            last = node.site in AFTER_LAYERS
            if (node.layer != model.n_layer) if last else (node.layer >= model.n_layer):
                layers = str(model.n_layer) if last else f"0 to {model.n_layer - 1}"
                raise InputError(f"node {tuple(node)}: layers of {node.site} in this model are {layers}")


def ablate(nodes: "Nodes | AnyCircuit", values: Mapping[str, ArrayLike] | None = None) -> Tap:
    """A tap that replaces nodes by constants at every token.

    Args:
        nodes: (layer, site, channel) or "layer.site.channel" each; or a circuit, for its nodes and its ablation values.
        values: site -> (n_layer, width), such as `Model.node_means()`; default: the circuit's, else zeros.

    Raises:
        InputError: what is no node, or values that are not numbers by site; in a run, values of another shape.

    Examples:
        >>> whole = model.run("x = 'hello")
        >>> without = model.run("x = 'hello", sg.ablate([(0, "mlp_out", 3)]), record=["mlp_out"])
        >>> float(abs(without["mlp_out", 0][..., 3]).max())
        0.0
    """
    nodes = circuit_or(nodes)
    if isinstance(nodes, Circuit) and values is None:
        values = nodes.values
    if not isinstance(values, Mapping | None):
        raise InputError(
            f"values {_shown(values)}: give site -> (layers, width), as Model.node_means() does; without values nodes "
            "are 0"
        )
    known = {site: _numbers(value, f"values of {site}:", "; give numbers") for site, value in (values or {}).items()}

    def constant(site: str, layer: int, channels: np.ndarray, x: jax.Array) -> Leaf:
        if values is None:
            return 0.0
        shape = np.shape(known[site]) if site in known else ()
        if len(shape) != 2 or layer >= shape[0] or shape[1] != x.shape[-1]:
            found = f"are {shape}" if shape else "are missing"
            raise InputError(f"values of {site} {found}; give (layers, {x.shape[-1]}), as Model.node_means() does")
        return jnp.asarray(known[site][layer][channels], x.dtype)

    return _at(nodes, constant)


def keep(circuit: AnyCircuit) -> Tap:
    """A tap that replaces every node outside a circuit by its ablation value. Edges that were pruned still act, and
    norms are live where the circuit's are frozen: for losses of the circuit as it is, see `Model.evaluate`.

    Examples:
        >>> circuit = model.circuit("single_double_quote")
        >>> model.run("x = 'hello", sg.keep(circuit)).logits.shape[0]
        1
    """
    kept = require_circuit(circuit, "keep")
    inside: dict[tuple[str, int], set[int]] = {}
    for node in kept.nodes:
        inside.setdefault((node.site, node.layer), set()).add(node.channel)

    def tap(site: str, layer: int, x: jax.Array) -> jax.Array:
        if site not in kept.values:
            return x
        opened = np.zeros(x.shape[-1], bool)
        opened[sorted(inside.get((site, layer), ()))] = True
        return jnp.where(opened, x, jnp.asarray(kept.values[site][layer], x.dtype))

    return NodeTap(tap, kept.nodes, kept)


def patch(nodes: "Nodes | AnyCircuit", source: Run) -> Tap:
    """A tap that puts activations of another run in the place of nodes.

    Args:
        nodes: (layer, site, channel) each, or a circuit.
        source: a run on as many prompts, or on one, of as many tokens, with these sites recorded.

    Examples:
        >>> other = model.run('x = "hello', record=["attn_out"])
        >>> patched = model.run("x = 'hello", sg.patch([(0, "attn_out", 5)], other), record=["attn_out"])
        >>> bool((patched["attn_out", 0][..., 5] == other["attn_out", 0][..., 5]).all())
        True
    """
    if not isinstance(source, Run):
        raise InputError(f"patch from {source!r:.80}: give a run with these sites, model.run(PROMPT, record=[SITE])")

    def other(site: str, layer: int, channels: np.ndarray, x: jax.Array) -> Leaf:
        found = source[site, layer]
        if found.shape[0] not in (1, x.shape[0]) or found.shape[1:] != x.shape[1:]:
            raise InputError(
                f"patch: {site} of layer {layer} is {found.shape} in the source run, {x.shape} in this one; "
                "run both on as many prompts (or the source on one) of as many tokens"
            )
        return jnp.asarray(found[..., channels], x.dtype)

    return _at(nodes, other)


def steer(nodes: "Nodes | AnyCircuit", amount: ArrayLike) -> Tap:
    """A tap that adds `amount` to nodes at every token.

    Args:
        nodes: (layer, site, channel) or "layer.site.channel" each, or a circuit.
        amount: a number; or an array that can be added to the (prompts, tokens, nodes) of every layer's site, such as
            one of (tokens, 1).

    Raises:
        InputError: what is no node, or no number; in a run, an array that does not fit.

    Examples:
        >>> plain = model.run("x = 'hello", record=["mlp_out"])
        >>> steered = model.run("x = 'hello", sg.steer([(2, "mlp_out", 3)], 2.5), record=["mlp_out"])
        >>> float((steered["mlp_out", 2] - plain["mlp_out", 2])[0, 0, 3])
        2.5
    """
    added = _numbers(amount, "steer by", ": give a number")

    def moved(site: str, layer: int, channels: np.ndarray, x: jax.Array) -> Leaf:
        place, shape = (*x.shape[:-1], len(channels)), np.shape(added)
        if len(shape) > len(place) or any(a not in (1, b) for a, b in zip(shape[::-1], place[::-1], strict=False)):
            raise InputError(
                f"steer by an array {shape}: {site} of layer {layer} has {place} (prompts, tokens, nodes) to add to; "
                "give one number, or an array that fits"
            )
        return x[..., channels] + jnp.broadcast_to(jnp.asarray(added, x.dtype), place)

    return _at(nodes, moved)


def _numbers(given: ArrayLike, what: str, ask: str) -> np.ndarray | jax.Array:
    """An array of what was given: an array, a number, or lists of numbers. InputError, WHAT GIVEN ASK, for others."""
    if isinstance(given, jax.Array):  # which may be traced
        return given
    try:
        found = np.asarray(given)
    except ValueError:  # lists of different lengths
        found = np.array(None)
    if found.dtype.kind not in "biuf":
        raise InputError(f"{what} {_shown(given)}{ask}")
    return found


def _shown(given: object) -> str:
    """On one line, shortened."""
    return f"{' '.join(repr(given).split()):.80}"


def _at(nodes: "Nodes | AnyCircuit", value: Callable[[str, int, np.ndarray, jax.Array], Leaf]) -> NodeTap:
    """A tap that puts ``value(site, layer, channels, x)`` in the place of nodes."""
    given: Nodes | Circuit = circuit_or(nodes)
    circuit = given if isinstance(given, Circuit) else None
    found = _nodes(given)
    places: dict[tuple[str, int], list[int]] = {}
    for layer, site, channel in found:
        places.setdefault((site, layer), []).append(channel)

    def tap(site: str, layer: int, x: jax.Array) -> jax.Array:
        if (site, layer) not in places:
            return x
        channels = np.array(places[site, layer])
        if channels.max() >= x.shape[-1]:  # JAX would write nothing, and say nothing
            raise InputError(f"node {(layer, site, int(channels.max()))}: channels there are 0 to {x.shape[-1] - 1}")
        return x.at[..., channels].set(value(site, layer, channels, x))

    return NodeTap(tap, found, circuit)


def _nodes(given: "Nodes | Circuit") -> tuple[Node, ...]:
    """InputError for what is no node of any model."""
    if isinstance(given, Circuit):
        return given.nodes
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InputError(f"nodes {given!r:.80}: give a circuit, or a list of (layer, site, channel)")
    return tuple(map(_node, given))


def _node(given: Node | tuple[int, str, int] | str) -> Node:
    number: Callable[[Any], int] = int if isinstance(given, str) else operator.index
    try:
        layer, site, channel = given.split(".") if isinstance(given, str) else given
        node = Node(number(layer), site, number(channel))
    except (TypeError, ValueError):
        raise InputError(
            f"node {given!r:.80}: not (layer, site, channel), such as (0, 'mlp_out', 3); give a list of these"
        ) from None
    if node.site not in (*NODE_SITES, *OBSERVED):
        raise InputError(
            f"node {tuple(node)}: unknown site {site!r}; choose from {', '.join((*NODE_SITES, *OBSERVED))}"
        )
    if node.layer < 0 or node.channel < 0:
        raise InputError(f"node {tuple(node)}: layers and channels are counted from 0")
    return node
