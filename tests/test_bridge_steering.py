"""Steering and transported circuits, where the dense model is the sparse one with a stream twice as large.

The decoder is then known (twice the identity), and what is done to a node must do the same in both models.
"""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt.bridges import image_ablation, steering
from sparse_gpt.bridges.boundaries import boundary_map
from sparse_gpt.bridges.objective import Bridged
from sparse_gpt.bridges.steering import Models, Place, Steering
from sparse_gpt.circuits import Node, TaskBatch
from sparse_gpt.errors import InputError
from sparse_gpt.io import write_json
from sparse_gpt.model import abstract_params, build
from sparse_gpt.model.taps import recorder
from tests.json_readers import READERS
from tests.test_bridges import CONTEXT, VOCABULARY, model_config, randomly

WIDTH = 16
NODE, READ_BY = Node(0, "mlp_in", 5), Place(1, 0, "mlp_in")


@pytest.fixture(scope="module")
def models() -> Models:
    config = model_config(1, WIDTH)
    shapes = abstract_params(config.model)
    params = jax.tree.map(lambda x: x.astype(np.float32), randomly(np.random.default_rng(0), shapes))
    twice = jax.tree.map(np.copy, params)
    twice["wte"] *= 2
    for part in ("attn", "mlp"):
        for leaf in twice["h_0"][part]["c_proj"].values():
            leaf *= 2
    pairs = boundary_map((), 1, 1)
    bridges = {f"decoder_{i}": {"kernel": 2 * np.eye(WIDTH, dtype=np.float32)} for i in range(3)}
    return Models(Bridged(build(config), build(config), pairs, 1.0), twice, params, bridges)


@pytest.fixture(scope="module")
def samples() -> TaskBatch:
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, VOCABULARY, (6, CONTEXT)).astype(np.int32)
    answer = rng.integers(0, VOCABULARY, 6).astype(np.int32)
    return TaskBatch(tokens, np.repeat([7, 5, 6], 2).astype(np.int32), answer, (answer + 1) % VOCABULARY)


@functools.partial(jax.jit, static_argnums=(0, 3))
def probabilities(model: Any, params: Any, samples: TaskBatch, tap: Any) -> jax.Array:
    """(B, 3) of answer and foil, and the foil's share of both, by one whole pass."""
    logits = model.apply({"params": params}, samples.tokens, tap=tap)[jnp.arange(6), samples.positions]
    both = jnp.take_along_axis(jax.nn.softmax(logits), jnp.stack([samples.answer, samples.foil], axis=1), axis=1)
    return jnp.concatenate([both, both[:, 1:] / both.sum(axis=1, keepdims=True)], axis=1)


class Seen(Steering):
    """Remembers what was added to the dense model's read, and to its stream."""

    def __init__(self, models: Models, samples: TaskBatch):
        super().__init__(models, samples)
        self.read: list[np.ndarray] = []
        self.streamed: list[np.ndarray] = []

    def dense(self, at: Place, change: np.ndarray, strengths: Any) -> np.ndarray:
        self.read.append(change)
        return super().dense(at, change, strengths)

    def stream(self, at: Place, change: np.ndarray, strengths: Any) -> np.ndarray:
        self.streamed.append(change)
        return super().stream(at, change, strengths)


@pytest.mark.slow
def test_a_node_at_strength_one_is_what_it_is_on_the_other_prompt(models: Models, samples: TaskBatch) -> None:
    def patch(site: str, layer: int, x: jax.Array) -> jax.Array:
        if site != NODE.site:
            return x
        other = x.reshape(3, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)
        return x.at[:, :, NODE.channel].set(other[:, :, NODE.channel])

    model, own = models.bridged.sparse, Seen(models, samples)
    found = own.curves(NODE, READ_BY, 0)
    wanted = [probabilities(model, models.params, samples, tap) for tap in (lambda site, layer, x: x, patch)]
    np.testing.assert_allclose(found.sparse[[0, -1]], np.mean(wanted, axis=1), rtol=1e-4)
    assert np.max(np.abs(found.sparse[-1] / found.sparse[0] - 1)) > 0.02, "the node must matter"
    np.testing.assert_allclose(found.dense, found.sparse, rtol=1e-3)
    for random, changes in ((found.random, own.read), (found.random_stream, own.streamed)):
        np.testing.assert_allclose(random[:, 0], np.tile(found.dense[0], (len(random), 1)), rtol=1e-5)
        norms = [np.linalg.norm(change, axis=2) for change in changes]
        assert len(norms) == 1 + steering.RANDOM_DIRECTIONS
        for norm in norms[1:]:
            np.testing.assert_allclose(norm, norms[0], rtol=1e-5)


@pytest.mark.slow
def test_a_node_at_strength_one_in_the_stream(models: Models, samples: TaskBatch) -> None:
    """What comes after the read sees the change too. In units of the sparse stream it is the read's difference times
    the stream's RMS over the norm's learned scale; the dense stream is twice as large."""
    own = Steering(models, samples)
    found = own.curves(NODE, READ_BY, 0)
    seen: dict[tuple[str, int], jax.Array] = {}
    tap = recorder(seen, ("resid_mid", "mlp_in"))
    models.bridged.sparse.apply({"params": models.params}, samples.tokens, tap=tap)
    read = np.asarray(seen["mlp_in", 0])[:, :, NODE.channel]
    rms = np.sqrt(np.mean(np.square(np.asarray(seen["resid_mid", 0])), axis=2))
    other = read.reshape(3, 2, -1)[:, ::-1].reshape(read.shape)
    inside = np.arange(read.shape[1]) <= samples.positions[:, None]
    delta = np.where(inside, 2 * (other - read) * rms / models.params["h_0"]["ln_2"]["scale"][NODE.channel], 0)

    def patch(site: str, layer: int, x: jax.Array) -> jax.Array:
        return x.at[:, :, NODE.channel].add(delta) if site == "resid_mid" else x

    wanted = probabilities(models.bridged.dense, models.dense_params, samples, patch)
    np.testing.assert_allclose(found.stream[-1], np.mean(wanted, axis=0), rtol=1e-3)
    np.testing.assert_allclose(found.stream[0], found.dense[0], rtol=1e-5)
    assert np.max(np.abs(found.stream[-1] / found.dense[-1] - 1)) > 1e-3, "the two ways must differ"


@pytest.mark.slow
def test_candidates_are_ranked_by_difference_times_importance(models: Models, samples: TaskBatch) -> None:
    nodes = [NODE, Node(0, "mlp_in", 6), Node(0, "mlp_out", 5), Node(0, "mlp_neuron", 3)]
    own = Steering(models, samples)
    found = steering.candidates(own, nodes, {nodes[0]: 0.1, nodes[1]: 10.0})
    assert [(e.site, e.channel) for e in found] == [("mlp_in", 6), ("mlp_in", 5)]
    assert found[1].score == pytest.approx(0.1 * np.sqrt(np.mean(np.sum(own.difference(NODE) ** 2, axis=1))))
    assert found[1].dense_foil == pytest.approx(found[1].sparse_foil, rel=1e-3)
    assert found[1].dense_share == pytest.approx(found[1].sparse_share, rel=1e-3)
    curves = own.curves(NODE, READ_BY, 0)
    for way in ("dense", "stream", "sparse"):
        assert [getattr(found[1], f"{way}_{key}") for key in ("foil", "share")] == pytest.approx(
            getattr(curves, way)[-1, 1:]
        )
    with pytest.raises(InputError, match=r"--node=0\.mlp_out\.5: not a residual channel at attn_in or mlp_in"):
        steering.steer(own, "x", nodes[2], 0)


def test_a_place_is_of_a_channel_that_is_there(models: Models) -> None:
    assert steering.place(models.bridged, (0, "attn_in", WIDTH - 1)) == Place(0, 0, "attn_in")
    for node in ((0, "attn_in", -1), (0, "mlp_in", WIDTH), (-1, "attn_in", 0), (1, "attn_in", 0), (0, "attn_q", 0)):
        assert steering.place(models.bridged, node) is None, node


def test_pairs_of_different_length_are_left_out(samples: TaskBatch) -> None:
    uneven = samples._replace(positions=np.array([7, 6, 5, 5, 6, 7], np.int32))
    np.testing.assert_array_equal(steering.comparable(uneven, "x").tokens, samples.tokens[2:4])
    with pytest.raises(InputError, match="no pair has two prompts of one length"):
        steering.comparable(samples._replace(positions=np.arange(6, dtype=np.int32)), "x")


@pytest.mark.slow
def test_an_ablated_image_is_the_circuits_channels_at_their_means(models: Models, samples: TaskBatch) -> None:
    """Rows that mix the channels of the circuit span the same image as the channels themselves."""
    nodes = [NODE, Node(0, "attn_out", 2), Node(0, "mlp_neuron", 1)]
    channels = image_ablation.channels(models, nodes)
    assert {i: rows.tolist() for i, rows in channels.items()} == {1: [2, 5]}
    mixed = 2 * np.eye(WIDTH, dtype=np.float32)
    mixed[np.ix_([2, 5], [2, 5])] = [[1, 3], [0.5, -1]]
    models = models._replace(bridges={**models.bridges, "decoder_1": {"kernel": mixed}})
    found = image_ablation.means(models, [samples.tokens])
    rows = np.pad(samples.tokens, ((0, 0), (0, 1)))
    image = image_ablation.images(models, {1: [channels[1]]})
    (result,) = image_ablation.outcomes(models, found.dense, image, samples, rows)

    def ablated(site: str, layer: int, x: jax.Array) -> jax.Array:
        return x.at[:, :, [2, 5]].set(x[:, :, [2, 5]].mean(axis=(0, 1))) if site == "resid_mid" else x

    model = models.bridged.dense
    logs = np.log(probabilities(model, models.dense_params, samples, ablated))
    wanted = np.mean(np.logaddexp(0, logs[:, 1] - logs[:, 0]))
    (whole,) = image_ablation.outcomes(
        models, found.dense, {i: np.zeros_like(x) for i, x in image.items()}, samples, rows
    )
    assert abs(whole.task_loss - wanted) > 0.01, "the image must matter"
    assert result.task_loss == pytest.approx(wanted, rel=1e-5)


def test_random_images_are_of_other_channels(models: Models) -> None:
    own = {0: np.array([1, 2]), 2: np.array([3])}
    found = image_ablation.random_channels(own, [np.array([0, 1, 2, 5]), np.arange(9), np.array([3])], 4, 0)
    assert {i: [sorted(draw) for draw in sets] for i, sets in found.items()} == {0: [[0, 5]] * 4}
    bases = image_ablation.images(models, {0: [np.array([0, 5]), np.array([3, 3])]})[0]
    assert bases.shape == (2, WIDTH, 2)
    assert [np.linalg.matrix_rank(basis) for basis in bases] == [2, 1]


@pytest.mark.parametrize("metrics", [{"task_loss": None}, {}])
def test_importance_is_not_known_without_the_circuits_loss(tmp_path: Path, metrics: dict[str, None]) -> None:
    reader = next(reader for reader in READERS if reader.name == "importance")
    reader.make(tmp_path)
    assert reader.read(tmp_path) == pytest.approx({Node(0, "attn_in", 1): 0.4})
    tree = json.loads((tmp_path / "circuit.json").read_text())
    write_json(tmp_path / "circuit.json", {**tree, "metrics": metrics})
    assert reader.read(tmp_path) == {}


def test_importance_is_over_the_circuits_loss_on_the_same_samples(tmp_path: Path) -> None:
    reader = next(reader for reader in READERS if reader.name == "importance")
    reader.make(tmp_path)
    tree = json.loads((tmp_path / "search.json").read_text())
    write_json(tmp_path / "search.json", {**tree, "importance": {**tree["importance"], "task_loss": 0.45}})
    assert reader.read(tmp_path) == pytest.approx({Node(0, "attn_in", 1): 0.05})
