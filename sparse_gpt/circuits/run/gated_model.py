"""The model seen through gates, and the binary task loss.

B sequences, T positions. Everything here is pure; a `GatedModel` is a pytree, so it can be an argument of jitted
functions (closing over the weights would bake them into every program as constants).
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.circuits.nodes import Gates
from sparse_gpt.circuits.run.packed_batch import AnyBatch
from sparse_gpt.config import WRITES, Config, ModelConfig
from sparse_gpt.model.taps import NORM_TAPS, Tap, chain, gate, identity, recorder, substitute
from sparse_gpt.model.transformer import Sequences, Transformer, apply, build_exact
from sparse_gpt.parameters import Params, flatten, parameter_table, unflatten


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
      draws: K sets of ablation values, site -> (K, n_layer, width), used cyclically; None: always `ablation`.
    """

    params: Params
    ablation: Gates
    model: Transformer = flax.struct.field(pytree_node=False)
    frozen: bool = flax.struct.field(pytree_node=False, default=False)
    full: Params | None = None
    draws: Gates | None = None

    def with_ablation_set(self, index: jax.Array | int) -> "GatedModel":
        """The model with ablation set `index % K`; `index` may be traced. With one set, the model itself."""
        if self.draws is None:
            return self
        values = {site: each[index % each.shape[0]] for site, each in self.draws.items()}
        return dataclasses.replace(self, ablation=values, draws=None)

    def tap(self, gates: Gates, tokens: jax.Array, sequences: Sequences) -> Tap:
        """The tap that gates, and freezes the norms if asked to."""
        return chain(substitute(self.norms(tokens, sequences)), gate(gates, self.ablation))

    def norms(self, tokens: jax.Array, sequences: Sequences) -> dict[tuple[str, int], jax.Array]:
        """(site, layer) -> (B, T or wanted positions, 1): what frozen norms keep; of live ones, nothing."""
        found: dict[tuple[str, int], jax.Array] = {}
        if self.frozen:
            full = self.params if self.full is None else self.full
            self.model.apply({"params": full}, tokens, recorder(found, NORM_TAPS), *sequences)
        return found

    def logits(self, batch: AnyBatch, tap: Tap = identity) -> jax.Array:
        """(B, V) logits where the answers are predicted."""
        return apply(self.model, self.params, batch.tokens, tap, *_sequences(batch))[:, 0]

    def answer_logits(self, gates: Gates | None, batch: AnyBatch) -> jax.Array:
        """(B, 2) logits of answer and foil; gates None runs the full model."""
        tap = identity if gates is None else self.tap(gates, batch.tokens, _sequences(batch))
        return _chosen(self.logits(batch, tap), batch)

    def answer_logits_of_one(self, gates: Gates, batch: AnyBatch) -> jax.Array:
        """The same, but sublayers of which no output is open are not computed. For small circuits that is most of them.

        Not for gradients: all gates of such a sublayer would get zeros. Under `vmap` both branches would run.
        """
        if self.model.config.d_position:  # a sublayer alone would not know its positions
            return self.answer_logits(gates, batch)
        run_method, sequences = functools.partial(apply, self.model, self.params), _sequences(batch)
        tap = self.tap(gates, batch.tokens, sequences)
        h = run_method(batch.tokens, batch.packing, method="embed")
        for i in range(2 * self.model.config.n_layer):
            layer, site = i // 2, WRITES[i % 2]

            def run(h: jax.Array, tap: Tap, i: int = i) -> jax.Array:
                return run_method(h, i, i + 1, tap, sequences, method="run")

            shut = substitute({(site, layer): self.ablation[site][layer]})  # leaves what is computed for it dead
            computed, constant = (functools.partial(run, tap=each) for each in (tap, shut))
            h = jax.lax.cond(jnp.any(gates[site][layer] > 0), computed, constant, h)
        return _chosen(run_method(h, sequences.at_positions(batch.tokens), tap, method="unembed")[:, 0], batch)


def _sequences(batch: AnyBatch) -> Sequences:
    """Where the answers of a batch are predicted."""
    return Sequences(batch.positions, batch.packing)


def _chosen(logits: jax.Array, batch: AnyBatch) -> jax.Array:
    """(B, 2) of (B, V): answer and foil."""
    return jnp.take_along_axis(logits, jnp.stack([batch.answer, batch.foil], axis=1), axis=1)


def gated_model(config: Config, params: Params, ablation: Gates, draws: Gates | None = None) -> GatedModel:
    """The gated model of a configuration. Circuits are always computed in float32, whatever training used."""
    with_biases = config
    if not config.model.bias:  # zero biases change nothing, and removed edges need a place for their constants
        params = _with_zero_biases(params, config.model)
        with_biases = dataclasses.replace(config, model=dataclasses.replace(config.model, bias=True))
    on_device = jax.tree.map(jnp.asarray, params)
    values = {site: jnp.asarray(value, jnp.float32) for site, value in ablation.items()}
    return GatedModel(on_device, values, build_exact(with_biases), config.prune.norm == "frozen", draws=draws)


def _with_zero_biases(params: Params, model: ModelConfig) -> Params:
    wanted = parameter_table(dataclasses.replace(model, bias=True))
    leaves = flatten(params)
    return unflatten({path: leaves.get(path, np.zeros(spec.shape, np.float32)) for path, spec in wanted.items()})


def binary_loss(logits: jax.Array) -> jax.Array:
    """Task loss: mean cross-entropy in nats between answer and foil alone, from (B, 2) logits. Chance is ln 2."""
    return jnp.mean(jax.nn.softplus(logits[:, 1] - logits[:, 0]))
