"""The bridges' terms against whole float64 passes, their gradients, the boundary map and the sampling of hybrids."""

import dataclasses
import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.bridges import boundaries, evaluation, mixtures, models, objective, run
from sparse_gpt.bridges.boundaries import Groups, Pair, boundary_map
from sparse_gpt.bridges.bridge import bridge_table, encoder_fraction
from sparse_gpt.bridges.dense import check_pair
from sparse_gpt.bridges.objective import Bridged, Terms
from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.interop.openai_config import to_fields
from sparse_gpt.interop.openai_weights import to_tensors
from sparse_gpt.io import write_json
from sparse_gpt.model import Params, abstract_params, build, unflatten
from sparse_gpt.records import Bridge
from sparse_gpt.records.bridge import BridgedBoundary, Measures
from sparse_gpt.report.mixture_grids import mixture_grids
from tests import reference_bridges

VOCABULARY, CONTEXT = 64, 8


def model_config(n_layer: int, d_model: int, **overrides: Any) -> Config:
    names = {"n_layer": n_layer, "d_model": d_model, "d_mlp": 32, "n_head": 2, "d_head": 8}
    names |= {"vocab_size": VOCABULARY, "context": CONTEXT}
    base = {f"model.{name}": value for name, value in names.items()} | {"sparsity.density": 0.5}
    return configs.validate(configs.replace(presets.tiny(), base | overrides))


class Problem(NamedTuple):
    """Two random models, bridges between them, and tokens (2, CONTEXT + 1)."""

    dense_config: Config
    config: Config
    pairs: tuple[Pair, ...]
    dense_params: Params
    params: Params
    bridges: Params
    tokens: np.ndarray

    @property
    def bridged(self) -> Bridged:
        return Bridged(build(self.dense_config), build(self.config), self.pairs, encoder_fraction(self.config))

    def terms(self, groups: Groups, chosen: Any) -> Terms:
        return self.bridged.terms(*self[3:], groups, jnp.asarray(chosen))

    def reference(self) -> tuple[Any, ...]:
        """The same for reference_bridges."""
        models = [
            reference_bridges.Model(to_fields(config), to_tensors(config.model, params))
            for config, params in ((self.dense_config, self.dense_params), (self.config, self.params))
        ]
        numbers, names = range(len(self.pairs)), ("encoder", "decoder")
        kernels = [[np.asarray(self.bridges[f"{name}_{i}"]["kernel"]) for i in numbers] for name in names]
        kept = int(encoder_fraction(self.config) * self.config.model.d_model)
        return (*models, *kernels, self.pairs, kept, self.tokens)

    def expected(self) -> dict[str, Any]:
        """The terms from whole float64 passes."""
        return reference_bridges.terms(*self.reference())


def randomly(rng: np.random.Generator, like: Params) -> Params:
    """Float64 numbers in which every tensor matters."""
    return jax.tree.map(lambda leaf: 0.3 * rng.normal(size=leaf.shape), like)


def problem(dense_layers: int, text: str = "", fraction: float = 0.25) -> Problem:
    """A dense model of width 16, with positions, and a sparse one of 2 layers and width 32."""
    rng = np.random.default_rng(0)
    dense = model_config(dense_layers, 16, **{"sparsity.activation_fraction": 0.0, "model.position": "additive"})
    sparse = model_config(2, 32, **{"sparsity.activation_fraction": fraction})
    pairs = boundary_map(text.split(",") if text else (), dense_layers, 2)
    table = bridge_table(16, 32, len(pairs))
    parts = [abstract_params(dense.model), abstract_params(sparse.model), unflatten(dict(table))]
    params = [jax.tree.map(lambda x: x.astype(np.float32), randomly(rng, part)) for part in parts]
    tokens = rng.integers(0, VOCABULARY, (2, CONTEXT + 1)).astype(np.int32)
    return Problem(dense, sparse, pairs, *params, tokens)


@pytest.fixture(scope="module")
def same_depth() -> Problem:
    return problem(2)


@pytest.mark.slow
def test_every_term_against_whole_passes(same_depth: Problem) -> None:
    groups = boundaries.groups(5, 0)
    found = jax.jit(lambda: same_depth.terms(groups, np.arange(5)))()
    expected = same_depth.expected()
    for name, value in dataclasses.asdict(found).items():
        np.testing.assert_allclose(value, expected[name], rtol=2e-4, err_msg=name)


@pytest.mark.slow
def test_models_of_different_depth_and_sampled_hybrids() -> None:
    """Three of four bridges between 3 and 2 layers; the group of two is represented by each of its members in turn."""
    case = problem(3, "0:0,2:1,5:3,6:4")
    groups = boundaries.groups(4, 3)
    assert groups == ((0, 1), (2,), (3,))
    expected = case.expected()
    run_terms = jax.jit(lambda chosen: case.terms(groups, chosen))
    for chosen in ([0, 2, 3], [1, 2, 3]):
        found = dataclasses.asdict(run_terms(np.array(chosen, np.int32)))
        for name, value in found.items():
            wanted = np.array(expected[name])
            wanted = wanted[chosen] if name.startswith(("kl", "loss_")) else wanted
            np.testing.assert_allclose(value, wanted, rtol=2e-4, err_msg=name)


@pytest.mark.slow
def test_mixtures_against_whole_passes() -> None:
    """Every path of 3 bridges between models of different depth, the first of them after attention."""
    case = problem(3, "1:1,4:2,6:4")
    wanted = mixtures.paths(4)
    assert len(set(wanted)) == 16
    found = mixtures.evaluate(case.bridged, *case[3:6], [case.tokens])
    assert found.complete
    assert [entry.path for entry in found.paths] == list(wanted)
    expected = [reference_bridges.mixture(*case.reference(), path) for path in wanted]
    np.testing.assert_allclose([entry.loss for entry in found.paths], expected, rtol=2e-4)
    assert abs(found.paths[wanted.index("dddd")].kl) < 1e-6
    assert all(entry.kl > 1e-4 for entry in found.paths if entry.path != "dddd")


def test_what_is_not_finite_is_null_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control that overflows does not cost the run its record."""
    terms = jnp.array([1.0, np.inf, np.nan, 2.0]), jnp.array([0.0, np.nan, np.inf, 1.0])
    monkeypatch.setattr(mixtures, "mixture_terms", lambda *_: terms)
    stub: Any = SimpleNamespace(pairs=(Pair(0, 0),))
    found = mixtures.evaluate(stub, {}, {}, {}, [np.zeros((2, 3), np.int32)])
    assert [(entry.loss, entry.kl) for entry in found.paths] == [(1.0, 0.0), (None, None), (None, None), (2.0, 1.0)]
    good: dict[str, list[float]] = {f"val_{name}": [1.5] for name in evaluation.MEASURES}
    bad = {**good, "val_nmse_encoder": [math.inf], "val_kl_to_dense": [math.nan], "val_loss_to_dense": [-math.inf]}
    measures = [evaluation._measures(terms, 0) for terms in (good, bad)]
    assert measures[1] == Measures(nmse_decoder=1.5, kl_to_sparse=1.5, loss_to_sparse=1.5)
    boundary = BridgedBoundary(dense=0, sparse=0, linear=measures[1], trained=measures[0], untrained=measures[1])
    record = Bridge(dense_loss=1.0, sparse_loss=1.5, bridges=(boundary,), mixtures=found)
    record.write(tmp_path / "bridge.json")
    assert Bridge.read(tmp_path / "bridge.json") == record
    told = evaluation.describe(record)
    assert "within 0.500 nats of the dense model (untrained bridges: inf; " in told
    assert "4 mixtures, the furthest (ds) within inf" in told
    assert mixture_grids(record)[0].above[0] == [None, None, 1.0]


def test_of_many_pieces_paths_with_at_most_two_switches() -> None:
    found = mixtures.paths(9)
    changes = [sum(a != b for a, b in itertools.pairwise(path)) for path in found]
    assert {n: changes.count(n) for n in set(changes)} == {0: 2, 1: 16, 2: 56}
    assert len(set(found)) == len(found)
    assert all(len(path) == 9 and set(path) <= {"d", "s"} for path in found)


def test_sampling_hybrids_is_unbiased() -> None:
    grouped = boundaries.groups(7, 3)
    assert grouped == ((0, 1, 2), (3, 4), (5, 6))
    drawn = np.asarray(jax.vmap(lambda key: boundaries.choose(key, grouped))(jax.random.split(jax.random.key(0), 6000)))
    value = np.random.default_rng(0).normal(size=7)
    sizes = np.array([3, 2, 2])
    for group, column in zip(grouped, drawn.T, strict=True):
        shares = np.bincount(column, minlength=7)[list(group)] / len(column)
        np.testing.assert_allclose(shares, 1 / len(group), atol=0.03)
        assert set(column) == set(group)
    assert abs((sizes * value[drawn]).sum(axis=1).mean() - value.sum()) < 0.1


CONFIG = configs.BridgeConfig(cross_entropy=0.5, nmse=2.0, kl_to_sparse=3.0, kl_to_dense=5.0)


def weighted(e: dict[str, Any], sizes: Any, chosen: Any) -> float:
    """CONFIG's objective from the reference's terms."""
    plain = 0.5 * e["loss"] + 2 * (np.sum(e["nmse_encoder"]) + np.sum(e["nmse_decoder"]))
    return float(plain + sum(sizes * (3 * np.array(e["kl_to_sparse"]) + 5 * np.array(e["kl_to_dense"]))[chosen]))


@pytest.mark.slow
def test_gradients() -> None:
    """None reaches the dense model; along a random direction of everything else it is the difference quotient of whole
    float64 passes. Without AbsTopK, because a difference across one of its switches is no derivative."""
    case, groups, chosen = problem(2, fraction=0.0), boundaries.groups(5, 2), np.array([1, 4])
    assert groups == ((0, 1, 2), (3, 4))

    def value(dense_params: Params, params: Params, bridges: Params) -> jax.Array:
        moved = case._replace(dense_params=dense_params, params=params, bridges=bridges)
        return objective.objective(CONFIG, moved.terms(groups, chosen), groups)

    found, gradients = jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2)))(*case[3:6])
    assert float(found) == pytest.approx(weighted(case.expected(), [3, 2], chosen), rel=1e-4)
    to_dense, *rest = gradients
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(to_dense))
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(rest))

    direction = randomly(np.random.default_rng(1), [case.params, case.bridges])

    def along(t: float) -> float:
        params, bridges = jax.tree.map(lambda x, d: x + t * d, [case.params, case.bridges], direction)
        return weighted(case._replace(params=params, bridges=bridges).expected(), [3, 2], chosen)

    slope = sum(
        np.sum(np.asarray(g, np.float64) * d) for g, d in zip(*map(jax.tree.leaves, (rest, direction)), strict=True)
    )
    assert (along(1e-4) - along(-1e-4)) / 2e-4 == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the dense model has 3 layers, the sparse one 2"),
        ("0:0,x:1", "expected pairs"),
        ("0:0,1", "expected pairs"),
        ("0:0,7:4", "the dense model of 3 layers has boundaries 0 to 6, not 7"),
        ("0:0,6:5", "the sparse model of 2 layers has boundaries 0 to 4, not 5"),
        ("0:1,3:1", "3:1 must be deeper in both models than 0:1"),
    ],
)
def test_impossible_boundary_maps_are_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        boundary_map(text.split(",") if text else (), 3, 2)


def test_boundaries_are_joined_one_to_one_by_default() -> None:
    assert boundary_map((), 2, 2) == tuple(Pair(i, i) for i in range(5))
    with pytest.raises(InputError, match=r"bridge\.sampled=6: there are only 5"):
        boundaries.groups(5, 6)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, (0.0, 0.001)),
        ({"anneal_start": 0.2}, (0.2, 0.5)),
        ({"anneal_start": 0.0005}, (0.0005, 0.001)),
        ({"anneal_stop": 0.3}, (0.0, 0.3)),
        ({"anneal_start": 0.2, "anneal_stop": 0.3}, (0.2, 0.3)),
    ],
    ids=str,
)
def test_a_sparse_model_does_not_anneal_unless_the_user_says_when(
    given: dict[str, float], wanted: tuple[float, float]
) -> None:
    chosen = {f"sparsity.{name}": value for name, value in given.items()}
    config = configs.replace(presets.preset("bridge_laptop"), {"sparsity.anneal_stop": 0.5} | chosen)
    found = configs.validate(models.start_at_target_density(config, chosen))
    assert (found.sparsity.anneal_start, found.sparsity.anneal_stop) == wanted


class ReadError(Exception):
    """In the place of reading the initial model's parameters."""


INITIAL = {"sparsity.activation_fraction": 0.25, "model.d_mlp": 64}


@pytest.mark.parametrize(
    ("changed", "chosen", "says"),
    [
        ({}, (), ""),
        ({"model.context": 4, "sparsity.anneal_stop": 0.3, "train.steps": 7}, (), ""),
        ({"sparsity.embedding_density": 0.5}, (), ""),
        ({"sparsity.density": 0.25}, (), r"its sparsity\.density is 0\.5, that of this run 0\.25; .*density=0\.5, or "),
        ({"sparsity.density": 0.25}, ("sparsity.density",), ""),
        ({"sparsity.embedding_density": 0.4}, (), r"its sparsity\.embedding_density is 0\.5, that of this run 0\.4"),
        (
            {"sparsity.activation_fraction": 0.5},
            (),
            r"its sparsity\.activation_fraction is 0\.25, that of this run 0\.5",
        ),
        ({"sparsity.activation_fraction": 0.0}, ("sparsity.activation_fraction",), ""),
        (
            {"sparsity.activation_sites": "mlp_neuron"},
            (),
            r"activation_sites is attn_in,.*, that of this run mlp_neuron",
        ),
        (
            {"model.activation": "relu"},
            ("model.activation",),
            r"its model\.activation is gelu, that of this run relu; set ",
        ),
        (
            {"model.residual_activation": "relu"},
            (),
            r"its model\.residual_activation is identity, that of this run relu",
        ),
        (
            {"model.n_head": 4, "model.d_head": 4},
            (),
            r"its model\.n_head is 2, that of this run 4; set --config\.model\.",
        ),
    ],
    ids=str,
)
def test_the_sparse_model_computes_as_the_one_that_it_starts_from(
    changed: dict[str, Any], chosen: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters of these shapes are those of another function elsewhere; what the user has set of sparsity stays."""

    def read(*_: object) -> None:
        raise ReadError

    monkeypatch.setattr(run, "load_params", read)
    write_json(tmp_path / "config.json", configs.to_dict(model_config(2, 32, **INITIAL)))
    config = model_config(2, 32, **{**INITIAL, "bridge.init_from": str(tmp_path), **changed})
    with (
        pytest.raises(InputError, match=rf"^--config\.bridge\.init_from=.*: .*{says}")
        if says
        else pytest.raises(ReadError)
    ):
        run.train_bridges(config, tmp_path / "run", chosen_fields=chosen)


@pytest.mark.parametrize("field", ["bridge.encoder_fraction", "sparsity.activation_fraction"])
def test_an_encoder_that_keeps_no_channel_is_refused(field: str) -> None:
    wide = {"model.d_mlp": 64, "sparsity.activation_sites": "mlp_neuron"}
    config = model_config(2, 32, **wide, **{field: 1 / 33})
    dense = model_config(2, 16, **{"sparsity.activation_fraction": 0.0})
    with pytest.raises(InputError, match=rf"--config\.{field}=.*a bridge's encoder, which has 32; .* is 0\.03125"):
        check_pair(dense, config)
    check_pair(dense, model_config(2, 32, **wide, **{field: 1 / 32}))
