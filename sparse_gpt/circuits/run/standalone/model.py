"""A circuit that runs on its own: the arithmetic of its nodes, and constants for everything else.

Made by `build.extract`; gives the logits of the gated model without running it. What a closed node would compute is
never computed, with one exception that exactness asks for: where AbsTopK acts at a site with an open node, the values
that every channel would have take part in the selection. Channels whose value no open node can change enter it as
constants. Where few nodes are open their ranks are counted, which takes a comparison for each pair of an open node and
a competitor; where many are, the whole site is selected from.

Channels come first and tokens side by side: then a channel is a row, ranks are counted for many tokens at once, and
prompts of different lengths can stand one after the other without padding between them (`Packing`).

B prompts, N tokens (B where only those that predict the answer are still needed), T tokens of the longest prompt, C
carried residual channels, A heads with an open node. Channels that are not carried depend on the current token alone;
the norms see their squares in a table. Leaves are arrays on the host or a device.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from sparse_gpt.circuits.run.packed_batch import AnyBatch
from sparse_gpt.model.activations import ACTIVATIONS
from sparse_gpt.model.attention import attend, attend_alike, causal_attention
from sparse_gpt.model.packing import Packing, of_padded
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
      threshold: (N,) the magnitude from which on a value stays, instead of k; None: selection is exact.
      keep: k of AbsTopK; None where it does not act.
      ranked: whether the ranks of the open nodes are counted; else the n values are all of the site's.
    """

    index: Leaf
    constants: Leaf
    constant_index: Leaf
    opened: Leaf
    gate: Leaf = None
    value: Leaf = None
    threshold: Leaf = None
    keep: int | None = flax.struct.field(pytree_node=False, default=None)
    ranked: bool = flax.struct.field(pytree_node=False, default=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Values (open nodes, N) of the open nodes from all that are computed, (N, n) if it `selects`, else (n, N)."""
        mine = self._outcome(x)
        if self.gate is None:
            return mine
        gate, value = self.gate[:, None], self.value[:, None]
        return gate * mine + (1 - gate) * value

    @property
    def selects(self) -> bool:
        """Whether it selects from the whole site, for which channels stand last."""
        return self.keep is not None and not self.ranked

    def _outcome(self, x: jax.Array) -> jax.Array:
        if self.keep is None:
            mine = jnp.take(x, self.opened, axis=0)
            return mine if self.threshold is None else jnp.where(jnp.abs(mine) >= self.threshold[None, :], mine, 0)
        if self.selects:
            return jnp.take(abs_topk(x, self.keep), self.opened, axis=-1).T
        mine = jnp.take(x, self.opened, axis=0)
        channel = jnp.take(self.index, self.opened)
        before = _before(x, self.index, mine, channel)
        before += _before(self.constants[:, None], self.constant_index, mine, channel)
        return jnp.where(before < self.keep, mine, 0)


def _before(x: jax.Array, index: jax.Array, mine: jax.Array, channel: jax.Array) -> jax.Array:
    """(o, N): how many of x (n, N or 1) are larger than `mine` (o, N), or equal in an earlier channel. One competitor
    after the other, for all tokens at once."""
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
        bias = self.bias if len(self.bias) == 1 else jnp.take(self.bias, at, axis=0)
        if self.top_k.selects:
            x = jnp.einsum("kn,kp->pn", self.weights, source) + bias
        else:
            x = jnp.einsum("kn,kp->np", self.weights, source) + bias.T
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
        x = normalized(h, jnp.take(self.squares, tokens), self.d_model, self.layer_norm)
        x = x * self.scale[:, None] + self.shift[:, None]
        x = jnp.concatenate([x, jnp.take(self.positions, at, axis=0).T])
        return self.top_k(x.T if self.top_k.selects else x)


def normalized(h: jax.Array, squares: jax.Array, d_model: int, layer_norm: bool) -> jax.Array:
    """(C, N) over its norm; `squares` (N,) is the part of the sum that is not in h."""
    if layer_norm:
        h = h - jnp.mean(h, axis=0, keepdims=True)
    variance = (jnp.sum(jnp.square(h), axis=0) + squares) / d_model
    return h * jax.lax.rsqrt(variance + (LAYER_EPS if layer_norm else RMS_EPS))[None, :]


@flax.struct.dataclass
class SlotLayout:
    """Values of open nodes laid into slots (slots, N); the other slots hold constants."""

    places: Leaf
    constants: Leaf

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.einsum("ns,np->sp", self.places, x) + self.constants[:, None]

    def by_token(self, x: jax.Array) -> jax.Array:
        """The same as (N, slots): rows that attention can lay out by prompt."""
        return jnp.einsum("ns,np->ps", self.places, x) + self.constants[None, :]


@flax.struct.dataclass
class Attention:
    """Heads with an open node, first those with an open q, as `build.active_heads` orders them.

    A head has slots for its open v and one that is 1, which measures how much attention the sink leaves to constants;
    if it has an open q, also a few slots for the channels of q and k that vary and one for all others together. Without
    open q all tokens ask the same: a key has one score, whichever token looks at it.

    Attributes:
      slots: of q and k of the heads with an open q, and of v of all.
      scores: from open k to the scores of the other heads' keys.
      sink: (A,).
    """

    read: ReadSite
    q: NodeSite
    k: NodeSite
    v: NodeSite
    slots: tuple[SlotLayout, SlotLayout, SlotLayout]
    scores: SlotLayout
    sink: Leaf
    out: NodeSite

    def __call__(self, h: jax.Array, tokens: jax.Array, packing: Packing, last: bool) -> jax.Array:
        """Open writes: (n, N), or (n, B) where answers are predicted if this is the `last` attention."""
        read = self.read(h, tokens, packing.at)
        asking, query_at = (read[:, packing.ends], packing.positions) if last else (read, packing.at)
        if not len(self.sink):  # every head is constant
            return self.out(jnp.zeros((0, asking.shape[1]), h.dtype), query_at)
        k, v = self.k(read, packing.at), self.v(read, packing.at)
        v = self._heads(packing.by_sequence(self.slots[2].by_token(v)))
        count, found = len(self.sink) - len(self.scores.constants), []
        if count:
            q = self.slots[0].by_token(self.q(asking, query_at))
            q = self._heads(q[:, None] if last else packing.by_sequence(q), count)
            keys = self._heads(packing.by_sequence(self.slots[1].by_token(k)), count)
            own = v[:, :count], self.sink[:count]
            found.append(attend(q, keys, *own, query_at[:, None]) if last else causal_attention(q, keys, *own))
        if count < len(self.sink):
            scores = jnp.swapaxes(packing.by_sequence(self.scores.by_token(k)), 1, 2)
            y = attend_alike(scores, v[:, count:], self.sink[count:])
            found.append(jnp.take_along_axis(y, query_at[:, None, None, None], axis=2) if last else y)
        y = jnp.swapaxes(jnp.concatenate(found, axis=1), 1, 2)
        y = y.reshape(*y.shape[:2], -1)  # (B, T or 1, A * slots)
        return self.out((y[:, 0] if last else packing.side_by_side(y)).T, query_at)

    def _heads(self, x: jax.Array, count: int | None = None) -> jax.Array:
        """(B, T, A * slots), or of so many heads, as (B, A, T, slots)."""
        return jnp.swapaxes(x.reshape(*x.shape[:2], len(self.sink) if count is None else count, -1), 1, 2)


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
        return h if self.keep is None else abs_topk(h.T, self.keep).T


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

    def final(self, tokens: jax.Array, packing: Packing) -> tuple[jax.Array, jax.Array]:
        """Normalized stream (D, B) where answers are predicted, and the tokens there (B,), from tokens (N,)."""
        at = packing.at
        h = (jnp.take(self.embedding, tokens, axis=0) + jnp.take(self.additive, at, axis=0)).T
        for i, sublayer in enumerate(self.sublayers):
            last = i == len(self.sublayers) - 2
            part, delta = sublayer.part, None
            if isinstance(part, Attention):
                delta = part(h, tokens, packing, last)
            elif part is not None:
                delta = part(h, tokens, at)
            if last:
                h, tokens, at = (jnp.take(x, packing.ends, axis=-1) for x in (h, tokens, at))
            h = sublayer(h, jnp.zeros((0, h.shape[1]), h.dtype) if delta is None else delta)
        every = jnp.concatenate([h, jnp.take(self.rest, tokens, axis=0).T])
        x = normalized(every, jnp.zeros(len(tokens), h.dtype), len(every), self.layer_norm)
        return x * self.scale[:, None] + self.shift[:, None], tokens

    def logits(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """(B, V) logits at one position per prompt, from tokens (B, T), before calibration."""
        x, token = self.final(jnp.reshape(tokens, -1), of_padded(positions, tokens.shape[1]))
        bigram = jnp.take(self.bigram, token % len(self.bigram), axis=0)
        return jnp.dot(x.T, self.head) + self.bias[None, :] + bigram

    def answer_logits(self, batch: AnyBatch) -> jax.Array:
        """(B, 2) logits of answer and foil, before calibration; no others are computed."""
        packing = batch.packing
        if packing is None:
            packing = of_padded(batch.positions, batch.tokens.shape[1])
        x, token = self.final(jnp.reshape(batch.tokens, -1), packing)
        choices = jnp.stack([batch.answer, batch.foil], axis=1)
        rows, columns = self.bigram.shape
        bigram = self.bigram[(token % rows)[:, None], choices % columns]
        return jnp.einsum("db,dbc->bc", x, self.head[:, choices]) + self.bias[choices] + bigram
