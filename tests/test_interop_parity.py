"""The model against an independent float64 implementation, for every option: logits and every named activation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt.config import NODE_SITES, RESIDUAL_SITES, Config
from sparse_gpt.interop import hooks, inference, openai_config, openai_weights
from sparse_gpt.model.taps import NORM_TAPS, chain, gate, recorder, substitute
from sparse_gpt.model.transformer import build
from sparse_gpt.parameters import Params
from tests import reference_model as reference

ALL_SITES = ",".join(NODE_SITES)
TEN_SITES = ",".join(NODE_SITES + RESIDUAL_SITES)
BASE: dict[str, Any] = {
    "block_size": 20,
    "vocab_size": 29,
    "n_layer": 1,
    "n_head": 2,
    "d_head": 6,
    "d_model": 14,
    "d_mlp": 23,
    "rms_norm": True,
    "tied_unembed": False,
    "afrac": 0.3,
    "afrac_loctypes": "attn_in",  # compiling AbsTopK takes most of these tests' time
}
LAYER = {"rms_norm": False}
CASES: dict[str, dict[str, Any]] = {
    "usual": {"sink": True, "enable_bigram_table": True, "n_layer": 2, "afrac_loctypes": ALL_SITES},
    "dense": {"afrac": None, "n_layer": 3},
    "everything kept": {"afrac": 1.0},
    "nothing kept at narrow sites": {"afrac": 0.08, "afrac_loctypes": "attn_in,attn_q,mlp_neuron"},
    "default sites": {"afrac_loctypes": reference.DEFAULTS["afrac_loctypes"]},
    "no sites": {"afrac_loctypes": ""},
    "ten sites": {"afrac_loctypes": TEN_SITES, "residual_activation_type": "relu", "activation_type": "relu"},
    "layer norm": LAYER,
    "layer norm without bias": LAYER | {"ln_bias": False, "bias": False},
    "relu": {"activation_type": "relu", "residual_activation_type": "relu"},
    "tied": {"tied_unembed": True, "n_head": 1, "d_head": 3},
    "concatenated": {"d_pos_emb": 5, "afrac_loctypes": "attn_in,mlp_in"},
    "concatenated, layer norm": LAYER | {"d_pos_emb": 4},
    "sinusoidal": {"d_pos_emb": 6, "sinusoidal_cat_pos_emb": True, "afrac_loctypes": "mlp_in"},
    "sinusoidal, odd": {"d_pos_emb": 5, "sinusoidal_cat_pos_emb": True, "afrac": None},
    "d_head and d_mlp by default": {"d_head": None, "d_mlp": None},
}


def ours(config: dict[str, Any], weights: dict[str, np.ndarray]) -> tuple[Config, Params]:
    """Our configuration and parameters of a reference model."""
    mapped, _ = openai_config.from_fields(config)
    mapped, _ = openai_weights.refine(mapped, weights)
    return mapped, openai_weights.to_params(mapped.model, weights, "weights")


def compare(config: dict[str, Any], seed: int, atol: float = 1e-5, **options: Any) -> None:
    """Our float32 model and the float64 one agree on random weights and tokens."""
    weights = reference.random_weights(config, seed, **options)
    tokens = np.random.default_rng(seed + 1).integers(0, config["vocab_size"], (3, config["block_size"] - 1))
    logits, activations = reference.forward(config, weights, tokens)
    mapped, params = ours(config, weights)
    places = hooks.places(mapped.model)
    [(_, found, seen)] = inference.batches(mapped, params, tokens.astype(np.int32), 8, places)
    assert found.dtype == np.float32
    names = {hooks.name(place, openai=True): x for place, x in seen.items()}
    assert names.keys() == activations.keys()
    for name, x in activations.items():
        np.testing.assert_allclose(names[name], x, rtol=0, atol=atol, err_msg=name)
    np.testing.assert_allclose(found, logits, rtol=0, atol=atol, err_msg="logits")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_each_option(case: str) -> None:
    compare(BASE | CASES[case], seed=3)


def random_config(seed: int) -> dict[str, Any]:
    """A draw from all combinations of options."""
    rng = np.random.default_rng(seed)
    sites = [site for site in NODE_SITES + RESIDUAL_SITES if rng.random() < 0.4]
    concatenated = int(rng.integers(2, 7)) if rng.random() < 0.4 else None
    flag = lambda: bool(rng.random() < 0.5)  # noqa: E731 (one draw per option, in order)
    return {
        "block_size": int(rng.integers(4, 20)),
        "vocab_size": int(rng.integers(5, 40)),
        "n_layer": int(rng.integers(1, 3)),
        "n_head": int(rng.integers(1, 4)),
        "d_head": int(rng.integers(2, 7)),
        "d_model": int(rng.integers(6, 20)),
        "d_mlp": int(rng.integers(4, 40)),
        "bias": flag(),
        "ln_bias": flag(),
        "rms_norm": flag(),
        "residual_activation_type": "relu" if flag() else "identity",
        "activation_type": "relu" if flag() else "gelu",
        "afrac": float(rng.choice([0.15, 0.25, 0.5])) if rng.random() < 0.8 else None,
        "afrac_loctypes": ",".join(sites),
        "tied_unembed": flag(),
        "enable_bigram_table": flag(),
        "d_pos_emb": concatenated,
        "sinusoidal_cat_pos_emb": concatenated is not None and flag(),
        "sink": flag(),
    }


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_random_combinations(seed: int) -> None:
    compare(random_config(seed), seed)


def test_tiny_norms_need_the_right_epsilon() -> None:
    """Sparse models have streams of tiny size, where 1e-6 for float32's machine epsilon would change the logits."""
    config = BASE | {"afrac": None}
    weights = reference.random_weights(config, 0)
    weights["transformer.wte.weight"] *= np.float32(1e-4)
    weights["transformer.wpe.weight"] *= np.float32(1e-4)
    tokens = np.random.default_rng(1).integers(0, config["vocab_size"], (2, 9))
    logits, _ = reference.forward(config, weights, tokens)
    mapped, params = ours(config, weights)
    [(_, found, _)] = inference.batches(mapped, params, tokens.astype(np.int32), 8)
    np.testing.assert_allclose(found, logits, rtol=0, atol=1e-4)


def test_attention_of_many_positions() -> None:
    """A sink and a long context, where the softmax denominator has many terms."""
    compare(BASE | {"block_size": 130, "sink": True, "afrac": None}, seed=5, atol=2e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Gates, on which the check of circuits rests

GATED = BASE | {"sink": True, "n_layer": 2}


def gated_problem(config: dict[str, Any]) -> tuple[reference.Weights, np.ndarray, dict[str, Any], dict[str, Any]]:
    """Weights, tokens, which nodes are kept (about three of four) and ablation values."""
    rng = np.random.default_rng(7)
    shapes = {site: (config["n_layer"], width) for site, width in reference.site_widths(config).items()}
    keep = {site: rng.random(shape) < 0.75 for site, shape in shapes.items()}
    ablation = {site: rng.standard_normal(shape).astype(np.float32) for site, shape in shapes.items()}
    return reference.random_weights(config, 7), rng.integers(0, config["vocab_size"], (3, 11)), keep, ablation


@pytest.mark.parametrize("options", [{}, LAYER | {"d_pos_emb": 4}])
@pytest.mark.parametrize("frozen", [False, True])
def test_gated_models_agree(options: dict[str, Any], frozen: bool) -> None:
    """Closed gates and frozen norms, here as taps."""
    config = GATED | options
    weights, tokens, keep, ablation = gated_problem(config)
    expected, _ = reference.forward(config, weights, tokens, reference.Support(keep, ablation, None, frozen))
    mapped, params = ours(config, weights)
    model = build(mapped)

    @jax.jit
    def gated(params: Params) -> Any:
        norms: dict[tuple[str, int], jax.Array] = {}
        model.apply({"params": params}, tokens, tap=recorder(norms, NORM_TAPS))
        gates = {site: jnp.asarray(mask, jnp.float32) for site, mask in keep.items()}
        closing = gate(gates, {site: jnp.asarray(value) for site, value in ablation.items()})
        return model.apply({"params": params}, tokens, tap=chain(substitute(norms if frozen else {}), closing))

    np.testing.assert_allclose(gated(params), expected, rtol=0, atol=2e-5)
    whole, _ = reference.forward(config, weights, tokens)
    assert np.abs(whole - expected).max() > 0.1


def test_a_node_without_outgoing_edges_is_an_ablated_node() -> None:
    """Pruning every edge out of a node equals closing it, and keeping every edge changes nothing."""
    weights, tokens, keep, ablation = gated_problem(GATED)
    widths, n_layer = reference.site_widths(GATED), GATED["n_layer"]
    every = {to: np.ones((n_layer, widths[to], widths[source]), bool) for to, source in reference.EDGE_SOURCE.items()}
    plain, _ = reference.forward(GATED, weights, tokens, reference.Support(keep, ablation))
    whole, _ = reference.forward(GATED, weights, tokens, reference.Support(keep, ablation, every))
    np.testing.assert_allclose(whole, plain, rtol=0, atol=1e-12)
    for site in ("attn_in", "attn_v", "mlp_in", "mlp_neuron"):
        channel = int(np.flatnonzero(keep[site][0])[0])
        closed = {name: mask.copy() for name, mask in keep.items()}
        closed[site][0, channel] = False
        pruned = {to: mask.copy() for to, mask in every.items()}
        for to, source in reference.EDGE_SOURCE.items():
            if source == site:
                pruned[to][0, :, channel] = False
        found, _ = reference.forward(GATED, weights, tokens, reference.Support(keep, ablation, pruned))
        expected, _ = reference.forward(GATED, weights, tokens, reference.Support(closed, ablation))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12, err_msg=site)
        assert np.abs(found - plain).max() > 1e-3, site
