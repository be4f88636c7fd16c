"""The `openai_reference` recipe with gradients from JAX, through a small functional forward pass of its own.

`train(config, weights, batches, recipe, iterations)` is the slow reference that a training run is held to; see
tests/reference_run.py for the recipe and for a ready problem.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests import reference_run
from tests.reference_run import Array, Recipe, Record, Weights


def train(
    config: Mapping[str, Any], weights: Weights, batches: Array, recipe: Recipe, iterations: int
) -> tuple[list[Record], Weights]:
    """Records and weights after the first `iterations` steps on batches (steps, sequences, time)."""

    @jax.jit
    def value_and_gradients(trained: dict[str, jax.Array], fixed: dict[str, jax.Array], tokens: jax.Array) -> Any:
        return jax.value_and_grad(lambda w: loss(config, w | fixed, tokens))(trained)

    def gradients(weights: Weights, tokens: Array) -> tuple[float, Weights]:
        fixed = {name: weights[name] for name in reference_run.NEVER_TRAINED}
        trained = {name: value for name, value in weights.items() if name not in fixed}
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            value, slopes = value_and_gradients(trained, fixed, tokens)
        return float(value), {name: np.asarray(slope) for name, slope in slopes.items()}

    return reference_run.train(weights, batches, recipe, gradients, iterations)


def loss(config: Mapping[str, Any], w: Mapping[str, jax.Array], tokens: jax.Array) -> jax.Array:
    """Mean cross-entropy of every token but the first of each row, given those before it."""
    scores = logits(config, w, tokens)[:, :-1]
    chosen = jnp.take_along_axis(scores, tokens[:, 1:, None], axis=-1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(scores, axis=-1) - chosen)


def logits(c: Mapping[str, Any], w: Mapping[str, jax.Array], tokens: jax.Array) -> jax.Array:
    """The forward pass of the recipe's models: RMSNorm, GELU, additive positions, AbsTopK, untied."""
    x = w["transformer.wte.weight"][tokens] + w["transformer.wpe.weight"][: tokens.shape[1]]
    for layer in range(c["n_layer"]):
        h = f"transformer.h.{layer}"
        read = _sparse(c, "attn_in", _norm(x, w[f"{h}.ln_1.weight"]))
        qkv = jnp.split(_linear(w, f"{h}.attn.c_attn", read), 3, axis=-1)
        q, k, v = (_sparse(c, site, part) for site, part in zip(("attn_q", "attn_k", "attn_v"), qkv, strict=True))
        mixed = _attention(c, w.get(f"{h}.attn.attn_imp.sink_logit"), q, k, v)
        x = x + _sparse(c, "attn_out", _linear(w, f"{h}.attn.c_proj", mixed))
        read = _sparse(c, "mlp_in", _norm(x, w[f"{h}.ln_2.weight"]))
        hidden = _linear(w, f"{h}.mlp.c_fc", read)
        hidden = _sparse(c, "mlp_neuron", hidden * (1 + jax.scipy.special.erf(hidden / math.sqrt(2))) / 2)
        x = x + _sparse(c, "mlp_out", _linear(w, f"{h}.mlp.c_proj", hidden))
    scores = _norm(x, w["transformer.ln_f.weight"]) @ w["lm_head.weight"].T + w["final_logits_bias"]
    if "bigram_table" in w:
        # The reference looks bigrams up with padding_idx=-1: the last token's row is read, but gets no gradient.
        table = w["bigram_table"]
        scores = scores + jnp.concatenate([table[:-1], jax.lax.stop_gradient(table[-1:])])[tokens]
    return scores


def _norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    return x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + np.finfo(np.float32).eps) * scale


def _linear(w: Mapping[str, jax.Array], name: str, x: jax.Array) -> jax.Array:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _sparse(c: Mapping[str, Any], site: str, x: jax.Array) -> jax.Array:
    if c["afrac"] is None or site not in c["afrac_loctypes"].split(","):
        return x
    rank = jnp.argsort(jnp.argsort(-jnp.abs(x), axis=-1), axis=-1)
    return jnp.where(rank < int(c["afrac"] * x.shape[-1]), x, 0.0)


def _attention(c: Mapping[str, Any], sink: jax.Array | None, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    batch, time, _ = q.shape
    q, k, v = (part.reshape(batch, time, c["n_head"], c["d_head"]) for part in (q, k, v))
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(c["d_head"])
    scores = jnp.where(jnp.tril(jnp.ones((time, time), bool)), scores, -jnp.inf)
    if sink is not None:
        extra = jnp.broadcast_to(sink[None, :, None, None], (*scores.shape[:3], 1))
        scores = jnp.concatenate([extra, scores], axis=-1)
    weights = jax.nn.softmax(scores, axis=-1)[..., -time:]
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, time, -1)
