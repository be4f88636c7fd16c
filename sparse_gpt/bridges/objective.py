"""The terms of the bridges' objective (paper, section on bridges), one number per bridge.

    cross-entropy of the sparse model
    + sum_i NMSE(f_i(h^d_i), h^s_i) + NMSE(g_i(h^s_i), h^d_i)
    + sum_i KL(dense logits || sparse model run from i on f_i(h^d_i))
    + sum_i KL(dense logits || dense model run from i on g_i(h^s_i))

h^d, h^s are the residual streams of the dense and the sparse model. No gradient reaches the dense model's parameters.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.bridges import bridge
from sparse_gpt.bridges.boundaries import Groups, Pair
from sparse_gpt.bridges.hybrids import hybrid_passes, plain_pass
from sparse_gpt.config import BridgeConfig
from sparse_gpt.model.taps import Tap, identity
from sparse_gpt.model.transformer import Transformer
from sparse_gpt.parameters import Params
from sparse_gpt.training.step import cross_entropy


@flax.struct.dataclass
class Terms:
    """Float32; N bridges, S groups of them (S = N when every hybrid is run). Losses in nats per token."""

    loss: jax.Array  # cross-entropy of the sparse model
    dense_loss: jax.Array  # and of the dense one
    nmse_encoder: jax.Array  # (N,)
    nmse_decoder: jax.Array  # (N,)
    kl_to_sparse: jax.Array  # (S,) of the hybrids that start dense and end sparse
    kl_to_dense: jax.Array  # (S,) of those that start sparse and end dense
    loss_to_sparse: jax.Array  # (S,) their cross-entropies
    loss_to_dense: jax.Array  # (S,)


@dataclasses.dataclass(frozen=True)
class Bridged:
    """Two models and the bridges between them.

    Attributes:
      dense, sparse: the models.
      pairs: the bridged boundaries.
      fraction: of channels that AbsTopK keeps after an encoder.
    """

    dense: Transformer
    sparse: Transformer
    pairs: tuple[Pair, ...]
    fraction: float

    # More than six parameters: gradients are taken of the three trees of parameters one by one.
    def terms(
        self,
        dense_params: Params,
        params: Params,
        bridges: Params,
        tokens_BxT1: jax.Array,
        groups: Groups,
        chosen: jax.Array,
        tap: Tap = identity,
    ) -> Terms:
        """Every term on a batch whose rows hold context + 1 tokens.

        Args:
          dense_params, params, bridges: of the dense model, the sparse model and the bridges.
          tokens_BxT1: (B, T + 1).
          groups, chosen: which hybrids are run, see `hybrid_passes`.
          tap: of the plain pass of the sparse model.
        """
        dense_params = jax.lax.stop_gradient(dense_params)
        tokens, targets = tokens_BxT1[:, :-1], tokens_BxT1[:, 1:]
        at_dense, at_sparse = [pair.dense for pair in self.pairs], [pair.sparse for pair in self.pairs]
        h_dense, dense_logits = plain_pass(self.dense, dense_params, tokens, at_dense)
        h_sparse, sparse_logits = plain_pass(self.sparse, params, tokens, at_sparse, tap)
        encoded = [bridge.encode(bridges, i, h, self.fraction) for i, h in enumerate(h_dense)]
        decoded = [bridge.decode(bridges, i, h) for i, h in enumerate(h_sparse)]
        entries = list(zip(at_sparse, encoded, strict=True))
        to_sparse = hybrid_passes(self.sparse, params, tokens, entries, groups, chosen)
        entries = list(zip(at_dense, decoded, strict=True))
        to_dense = hybrid_passes(self.dense, dense_params, tokens, entries, groups, chosen)
        return Terms(
            loss=cross_entropy(sparse_logits, targets),
            dense_loss=cross_entropy(dense_logits, targets),
            nmse_encoder=jnp.stack([nmse(y, h) for y, h in zip(encoded, h_sparse, strict=True)]),
            nmse_decoder=jnp.stack([nmse(y, h) for y, h in zip(decoded, h_dense, strict=True)]),
            kl_to_sparse=divergences(dense_logits, to_sparse),
            kl_to_dense=divergences(dense_logits, to_dense),
            loss_to_sparse=_losses(to_sparse, targets),
            loss_to_dense=_losses(to_dense, targets),
        )


def nmse(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Squared error over all positions and channels, divided by the target's sum of squares; float32 scalar.

    The gradient flows into the target and the divisor too: making a stream smaller does not make its bridge better.
    """
    prediction, target = prediction.astype(jnp.float32), target.astype(jnp.float32)
    # A stream can be all zero when very few embedding entries are left.
    size = jnp.maximum(jnp.sum(jnp.square(target)), np.finfo(np.float32).tiny)
    return jnp.sum(jnp.square(prediction - target)) / size


def divergences(logits_BxTxV: jax.Array, hybrids_BxSxTxV: jax.Array) -> jax.Array:
    """KL(softmax(logits) || softmax(hybrid)) of every hybrid, mean over positions: (S,) in nats."""
    wanted = jax.nn.log_softmax(logits_BxTxV)[:, None]
    difference = wanted - jax.nn.log_softmax(hybrids_BxSxTxV)
    return jnp.mean(jnp.sum(jnp.exp(wanted) * difference, axis=-1), axis=(0, 2))


def _losses(hybrids_BxSxTxV: jax.Array, targets_BxT: jax.Array) -> jax.Array:
    return jax.vmap(cross_entropy, in_axes=(1, None))(hybrids_BxSxTxV, targets_BxT)


def objective(config: BridgeConfig, terms: Terms, groups: Groups) -> jax.Array:
    """The weighted sum that is minimized. A hybrid that stands for a group counts as many times as the group has
    bridges, which makes the sum over sampled hybrids unbiased."""
    size = jnp.array([len(group) for group in groups], jnp.float32)
    return (
        config.cross_entropy * terms.loss
        + config.nmse * (jnp.sum(terms.nmse_encoder) + jnp.sum(terms.nmse_decoder))
        + config.kl_to_sparse * jnp.sum(size * terms.kl_to_sparse)
        + config.kl_to_dense * jnp.sum(size * terms.kl_to_dense)
    )
