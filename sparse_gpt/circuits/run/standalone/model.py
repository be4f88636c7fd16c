"""A circuit that runs on its own: the arithmetic of its nodes, and constants for everything else.

Made by `build.extract`; gives the logits of the gated model without running it. What a closed node would compute is
never computed, with one exception that exactness asks for: where AbsTopK acts at a site with an open node, the values
that every channel would have take part in the selection. Channels whose value no open node can change enter it as
constants. Where few nodes are open their ranks are counted, which takes a comparison for each pair of an open node and
a competitor; where many are, the whole site is selected from.

B sequences, T positions (1 where only the answer's position is still needed), C carried residual channels, A heads with
an open node. Channels that are not carried depend on the current token alone; the norms see their squares in a table.
Leaves are arrays on the host or a device.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from sparse_gpt.circuits.run.task_batch import TaskBatch
from sparse_gpt.model.activations import ACTIVATIONS
from sparse_gpt.model.attention import attend
from sparse_gpt.model.transformer import LAYER_EPS, RMS_EPS
from sparse_gpt.parameters import Leaf
from sparse_gpt.sparsity.topk import abs_topk


@flax.struct.dataclass
class TopKGate:
    """AbsTopK as the open nodes of a site see it: value i stays when fewer than `keep` others come before it.

    Attributes:
      index: (n,) channel of each value that is computed, ascending.
      constants, constant_index: (m,) values that are constant and may come before others, and their channels.
      opened: where the open nodes stand among the n values.
      gate, value: (open nodes,) how far each of them is open, and what it is as far as it is not; None: all open.
      keep: k of AbsTopK; None where it does not act.
      ranked: whether the ranks of the open nodes are counted; else the n values are all of the site's.
    """

    index: Leaf
    constants: Leaf
    constant_index: Leaf
    opened: Leaf
    gate: Leaf = None
    value: Leaf = None
    keep: int | None = flax.struct.field(pytree_node=False, default=None)
    ranked: bool = flax.struct.field(pytree_node=False, default=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Values (B, T, open nodes) of the open nodes from all that are computed (B, T, n)."""
        mine = self._outcome(x)
        if self.gate is None:
            return mine
        gate, value = self.gate[None, None, :], self.value[None, None, :]
        return gate * mine + (1 - gate) * value

    def _outcome(self, x: jax.Array) -> jax.Array:
        mine = jnp.take(x, self.opened, axis=-1)
        if self.keep is None:
            return mine
        if not self.ranked:
            return jnp.take(abs_topk(x, self.keep), self.opened, axis=-1)
        channel, flat = jnp.take(self.index, self.opened), mine.reshape(-1, mine.shape[-1]).T
        before = _before(x.reshape(-1, x.shape[-1]).T, self.index, flat, channel)
        before += _before(self.constants[:, None], self.constant_index, flat, channel)
        return jnp.where(before.T.reshape(mine.shape) < self.keep, mine, 0)


def _before(x: jax.Array, index: jax.Array, mine: jax.Array, channel: jax.Array) -> jax.Array:
    """(o, P): how many of x (n, P or 1) are larger than `mine` (o, P), or equal in an earlier channel.

    One competitor after the other, at all positions at once: positions lie side by side for the vector unit.
    """
    x, mine = (jnp.abs(lax.stop_gradient(each)) for each in (x, mine))
    index = jnp.asarray(index)

    def count(i: jax.Array, before: jax.Array) -> jax.Array:
        one, earlier = x[i][None, :], (index[i] < channel)[:, None]
        return before + ((one > mine) | ((one == mine) & earlier)).astype(jnp.int32)

    none = jnp.zeros(mine.shape, jnp.int32)
    return lax.fori_loop(0, len(index), count, none) if index.size else none


@flax.struct.dataclass
class NodeSite:
    """Open nodes of one site from open nodes of another: `bias` (1 or context, n) holds all that is closed."""

    weights: Leaf
    bias: Leaf
    top_k: TopKGate

    def __call__(self, source: jax.Array, at: jax.Array, activation: str = "") -> jax.Array:
        x = jnp.dot(source, self.weights) + self.bias[at % len(self.bias)]
        if activation:
            x = ACTIVATIONS[activation].traced(x)
        return self.top_k(x)


@flax.struct.dataclass
class ReadSite:
    """Norm of the stream and the channels of it that are read, concatenated positions included.

    `squares` (V,): sum of squares of the channels that are not carried, by token; `positions` (context, d_position).
    """

    scale: Leaf
    shift: Leaf
    squares: Leaf
    positions: Leaf
    top_k: TopKGate
    d_model: int = flax.struct.field(pytree_node=False)
    layer_norm: bool = flax.struct.field(pytree_node=False)

    def __call__(self, h: jax.Array, tokens: jax.Array, at: jax.Array) -> jax.Array:
        x = normalized(h, self.squares[tokens], self.d_model, self.layer_norm)
        x = x * self.scale[None, None, :] + self.shift[None, None, :]
        own = jnp.broadcast_to(self.positions[at], (*x.shape[:2], self.positions.shape[1]))
        return self.top_k(jnp.concatenate([x, own], axis=-1))


def normalized(h: jax.Array, squares: jax.Array, d_model: int, layer_norm: bool) -> jax.Array:
    """(B, T, C) over its norm; `squares` (B, T) is the part of the sum that is not in h."""
    if layer_norm:
        h = h - jnp.mean(h, axis=-1, keepdims=True)
    variance = (jnp.sum(jnp.square(h), axis=-1) + squares) / d_model
    return h * jax.lax.rsqrt(variance + (LAYER_EPS if layer_norm else RMS_EPS))[..., None]


@flax.struct.dataclass
class SlotLayout:
    """Values of open nodes laid into slots (B, T, slots); the other slots hold constants."""

    places: Leaf
    constants: Leaf

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.dot(x, self.places) + self.constants[None, None, :]


@flax.struct.dataclass
class Attention:
    """Heads with an open node. Each has a few slots for the channels of q and k that vary and one for all others
    together; slots for its open v and one that is 1, which measures how much attention the sink leaves to constants."""

    read: ReadSite
    q: NodeSite
    k: NodeSite
    v: NodeSite
    slots: tuple[SlotLayout, SlotLayout, SlotLayout]
    sink: Leaf
    out: NodeSite

    def __call__(self, h: jax.Array, tokens: jax.Array, at: jax.Array, positions: jax.Array | None) -> jax.Array:
        """Open writes: (B, T, n), or (B, 1, n) at `positions`."""
        read = self.read(h, tokens, at)
        asking, query_at = read, at
        if positions is not None:
            asking, query_at = at_positions(read, positions), positions[:, None]
        if not len(self.sink):  # every head is constant
            return self.out(jnp.zeros((*asking.shape[:2], 0), h.dtype), query_at)
        parts = (self.q(asking, query_at), self.k(read, at), self.v(read, at))
        q, k, v = (self._heads(place(x)) for place, x in zip(self.slots, parts, strict=True))
        queries = jnp.broadcast_to(query_at, (q.shape[0], q.shape[2]))
        y = jnp.swapaxes(attend(q, k, v, self.sink, queries), 1, 2)
        return self.out(y.reshape(*y.shape[:2], -1), query_at)

    def _heads(self, x: jax.Array) -> jax.Array:
        return jnp.swapaxes(x.reshape(*x.shape[:2], len(self.sink), -1), 1, 2)


@flax.struct.dataclass
class Mlp:
    """Open reads, neurons and writes of an MLP."""

    read: ReadSite
    neuron: NodeSite
    out: NodeSite
    activation: str = flax.struct.field(pytree_node=False)

    def __call__(self, h: jax.Array, tokens: jax.Array, at: jax.Array) -> jax.Array:
        return self.out(self.neuron(self.read(h, tokens, at), at, self.activation), at)


@flax.struct.dataclass
class Sublayer:
    """What is added to the carried channels, and the residual stream's own AbsTopK and ReLU. `part` None: constants."""

    part: Attention | Mlp | None
    write: SlotLayout
    keep: int | None = flax.struct.field(pytree_node=False)
    relu: bool = flax.struct.field(pytree_node=False)

    def __call__(self, h: jax.Array, delta: jax.Array) -> jax.Array:
        h = h + self.write(delta)
        h = jax.nn.relu(h) if self.relu else h
        return h if self.keep is None else abs_topk(h, self.keep)


@flax.struct.dataclass
class StandaloneCircuit:
    """A circuit on its own; a pytree of small arrays.

    Attributes:
      embedding: (V, C) of the carried channels.
      additive: (context, C) additive positions, zeros without.
      sublayers: attention and MLP in turn.
      rest: (V, D - C) the other channels at the end.
      squares: (V,) of `rest`.
      scale, shift: of the final norm, carried channels first, then the rest.
      head: (D, V), rows in the same order.
      bias: (V,) of the final logits.
      bigram: (V, V), or (1, 1) without.
    """

    embedding: Leaf
    additive: Leaf
    sublayers: tuple[Sublayer, ...]
    rest: Leaf
    squares: Leaf
    scale: Leaf
    shift: Leaf
    head: Leaf
    bias: Leaf
    bigram: Leaf
    layer_norm: bool = flax.struct.field(pytree_node=False)

    def final(self, tokens: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Normalized stream (B, D) at one position per sequence, and the token there (B,)."""
        at = jnp.arange(tokens.shape[1])[None, :]
        h = jnp.take(self.embedding, tokens, axis=0) + self.additive[at]
        for i, sublayer in enumerate(self.sublayers):
            last = i == len(self.sublayers) - 2
            part, delta = sublayer.part, jnp.zeros((1, 1, 0), h.dtype)
            if isinstance(part, Attention):
                delta = part(h, tokens, at, positions if last else None)
            elif part is not None:
                delta = part(h, tokens, at)
            if last:
                h, tokens, at = (
                    at_positions(h, positions),
                    jnp.take_along_axis(tokens, positions[:, None], 1),
                    positions[:, None],
                )
            h = sublayer(h, delta)
        tokens = tokens[:, 0]
        every = jnp.concatenate([h[:, 0], jnp.take(self.rest, tokens, axis=0)], axis=-1)
        none = jnp.zeros((len(tokens), 1), h.dtype)
        x = normalized(every[:, None], none, every.shape[1], self.layer_norm)[:, 0]
        return x * self.scale[None, :] + self.shift[None, :], tokens

    def logits(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """(B, V) logits at one position per sequence, before calibration."""
        x, token = self.final(tokens, positions)
        bigram = self.bigram[token % len(self.bigram)]
        return jnp.dot(x, self.head) + self.bias[None, :] + bigram

    def answer_logits(self, batch: TaskBatch) -> jax.Array:
        """(B, 2) logits of answer and foil, before calibration; no others are computed."""
        x, token = self.final(batch.tokens, batch.positions)
        choices = jnp.stack([batch.answer, batch.foil], axis=1)
        rows, columns = self.bigram.shape
        bigram = self.bigram[(token % rows)[:, None], choices % columns]
        return jnp.einsum("bd,dbc->bc", x, self.head[:, choices]) + self.bias[choices] + bigram


def at_positions(x: jax.Array, positions: jax.Array) -> jax.Array:
    """x (B, T, n) at one position per row: (B, 1, n)."""
    return jnp.take_along_axis(x, positions[:, None, None], axis=1)
