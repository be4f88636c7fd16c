"""The model seen through gates, and the binary task loss.

B sequences, T positions. Everything here is pure; a `GatedModel` is a pytree, so it can be an argument of jitted
functions (closing over the weights would bake them into every program as constants).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.circuits.nodes import Gates
from sparse_gpt.config import Config, ModelConfig
from sparse_gpt.model.taps import NORM_TAPS, Tap, chain, gate, identity, recorder, substitute
from sparse_gpt.model.transformer import Transformer, build
from sparse_gpt.parameters import Params, flatten, parameter_table, unflatten


class EncodedTask(Protocol):
    """What `tasks.encode` returns: numpy arrays; rows 2 i and 2 i + 1 are a pair."""

    @property
    def tokens(self) -> np.ndarray: ...  # (B, T) int32, padded on the right
    @property
    def lengths(self) -> np.ndarray: ...  # (B,): the answer is predicted at position lengths - 1
    @property
    def answer_id(self) -> np.ndarray: ...  # (B,)
    @property
    def foil_id(self) -> np.ndarray: ...  # (B,)


class TaskBatch(NamedTuple):
    """Samples of a task. Rows 2 i and 2 i + 1 are a pair."""

    tokens: Any  # (B, T) int32
    positions: Any  # (B,) int32, where the answer is predicted
    answer: Any  # (B,) int32
    foil: Any  # (B,) int32
    task: Any = None  # (B,) int32, which of several tasks; None when there is one


def task_batch(encoded: EncodedTask) -> TaskBatch:
    """All samples of an encoded task."""
    return TaskBatch(
        np.asarray(encoded.tokens, np.int32),
        np.asarray(encoded.lengths, np.int32) - 1,
        np.asarray(encoded.answer_id, np.int32),
        np.asarray(encoded.foil_id, np.int32),
    )


def rows(batch: TaskBatch, index: Any) -> TaskBatch:
    """The given rows (an index array or slice) of a batch."""
    return TaskBatch(*(None if array is None else array[index] for array in batch))


def joined(batches: Sequence[TaskBatch]) -> TaskBatch:
    """Samples of several batches of one length, one batch after the other."""
    return TaskBatch(*(None if parts[0] is None else np.concatenate(parts) for parts in zip(*batches, strict=True)))


def padded(batch: TaskBatch, length: int) -> TaskBatch:
    """A batch with prompts padded to `length`; what stands behind the answer's position changes nothing."""
    return batch._replace(tokens=np.pad(batch.tokens, ((0, 0), (0, length - batch.tokens.shape[1]))))


def by_length(batch: TaskBatch) -> TaskBatch:
    """A batch in order of length, pairs together: what goes through the model at one time is then of like length."""
    pairs = np.argsort(np.max(np.asarray(batch.positions).reshape(-1, 2), axis=1), kind="stable")
    return rows(batch, np.stack([2 * pairs, 2 * pairs + 1], axis=1).reshape(-1))


def trimmed(batch: TaskBatch) -> TaskBatch:
    """A batch cut to half its width where no prompt is longer: one of two widths, so that few programs are compiled."""
    half = -(-batch.tokens.shape[1] // 16) * 8
    return batch._replace(tokens=batch.tokens[:, :half]) if np.max(batch.positions) < half else batch


def without_longest(batch: TaskBatch, share: float = 0.1, bucket: int = 8) -> TaskBatch:
    """A batch without the pairs that are longer than a multiple of `bucket` tokens which holds the other 1 - share.

    Prompts are padded to the longest, so a few long ones would cost the search more than all others together.
    """
    lengths = np.max(np.asarray(batch.positions).reshape(-1, 2), axis=1) + 1
    longest = -(-int(np.quantile(lengths, 1 - share, method="inverted_cdf")) // bucket) * bucket
    kept = rows(batch, np.repeat(lengths <= longest, 2))
    return kept._replace(tokens=kept.tokens[:, :longest])


@flax.struct.dataclass
class GatedModel:
    """A model whose nodes can be replaced by their ablation values.

    Attributes:
      params: the weights.
      ablation: site -> (n_layer, width), what a closed node is at every position.
      model: in float32.
      frozen: whether the norms keep the scale that the full model has on the same tokens ("frozen") or follow the
        gated stream ("live").
      full: weights of the full model, where `params` are not (edges were removed); they set the frozen norms.
      draws: several sets of ablation values, site -> (K, n_layer, width), that take turns; None: always `ablation`.
    """

    params: Params
    ablation: Gates
    model: Transformer = flax.struct.field(pytree_node=False)
    frozen: bool = flax.struct.field(pytree_node=False, default=False)
    full: Params | None = None
    draws: Gates | None = None

    def drawn(self, turn: Any) -> "GatedModel":
        """The model with one set of ablation values: that of a turn (an integer, also a traced one), around and
        around."""
        if self.draws is None:
            return self
        values = {site: each[turn % each.shape[0]] for site, each in self.draws.items()}
        return dataclasses.replace(self, ablation=values, draws=None)

    def tap(self, gates: Gates, tokens: jax.Array, positions: jax.Array | None) -> Tap:
        """The tap that gates, and freezes the norms if asked to."""
        if not self.frozen:
            return gate(gates, self.ablation)
        norms: dict[tuple[str, int], jax.Array] = {}
        full = self.params if self.full is None else self.full
        self.model.apply({"params": full}, tokens, tap=recorder(norms, NORM_TAPS), positions=positions)
        return chain(substitute(norms), gate(gates, self.ablation))

    def logits(self, batch: TaskBatch, tap: Tap = identity) -> jax.Array:
        """(B, V) logits where the answers are predicted."""
        logits: Any = self.model.apply({"params": self.params}, batch.tokens, tap=tap, positions=batch.positions)
        return jnp.asarray(logits)[:, 0]

    def answer_logits(self, gates: Gates | None, batch: TaskBatch) -> jax.Array:
        """(B, 2) logits of answer and foil; gates None runs the full model."""
        tap = identity if gates is None else self.tap(gates, batch.tokens, batch.positions)
        return _chosen(self.logits(batch, tap), batch)

    def answer_logits_of_one(self, gates: Gates, batch: TaskBatch) -> jax.Array:
        """The same, but sublayers of which no output is open are not computed. For small circuits that is most of them.

        Not for gradients: all gates of such a sublayer would get zeros. Under `vmap` both branches would run.
        """
        if self.model.config.d_position:  # a sublayer alone would not know its positions
            return self.answer_logits(gates, batch)
        model, variables, positions = self.model, {"params": self.params}, batch.positions
        tap = self.tap(gates, batch.tokens, positions)
        h: Any = model.apply(variables, batch.tokens, method="embed")
        for i in range(2 * model.config.n_layer):
            layer, site = i // 2, ("attn_out", "mlp_out")[i % 2]

            def run(h: jax.Array, tap: Tap, i: int = i) -> jax.Array:
                after: Any = model.apply(variables, h, i, i + 1, tap, positions, method="run")
                return jnp.asarray(after)

            shut = substitute({(site, layer): self.ablation[site][layer]})  # leaves what is computed for it dead
            computed, constant = (functools.partial(run, tap=each) for each in (tap, shut))
            h = jax.lax.cond(jnp.any(gates[site][layer] > 0), computed, constant, h)
        at = jnp.take_along_axis(batch.tokens, positions[:, None], axis=1)
        logits: Any = model.apply(variables, h, at, tap, method="unembed")
        return _chosen(jnp.asarray(logits)[:, 0], batch)


def _chosen(logits: jax.Array, batch: TaskBatch) -> jax.Array:
    """(B, 2) of (B, V): answer and foil."""
    return jnp.take_along_axis(logits, jnp.stack([batch.answer, batch.foil], axis=1), axis=1)


def gated_model(config: Config, params: Params, ablation: Gates, draws: Gates | None = None) -> GatedModel:
    """The gated model of a configuration. Circuits are always computed in float32, whatever training used."""
    exact = dataclasses.replace(config, train=dataclasses.replace(config.train, dtype="float32", remat=False))
    if not config.model.bias:  # zero biases change nothing, and removed edges need a place for their constants
        params = _with_zero_biases(params, config.model)
        exact = dataclasses.replace(exact, model=dataclasses.replace(config.model, bias=True))
    on_device = jax.tree.map(jnp.asarray, params)
    values = {site: jnp.asarray(value, jnp.float32) for site, value in ablation.items()}
    return GatedModel(on_device, values, build(exact), config.prune.norm == "frozen", draws=draws)


def _with_zero_biases(params: Params, model: ModelConfig) -> Params:
    wanted = parameter_table(dataclasses.replace(model, bias=True))
    leaves = flatten(params)
    return unflatten({path: leaves.get(path, np.zeros(spec.shape, np.float32)) for path, spec in wanted.items()})


def binary_loss(logits: jax.Array) -> jax.Array:
    """Task loss: mean cross-entropy in nats between answer and foil alone, from (B, 2) logits. Chance is ln 2."""
    return jnp.mean(jax.nn.softplus(logits[:, 1] - logits[:, 0]))
