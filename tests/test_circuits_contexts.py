"""Contexts of nodes: the extremes of a plain pass over the text, without repetitions."""

import jax
import numpy as np
import pytest

from sparse_gpt.circuits import Node
from sparse_gpt.circuits.evidence.max_activating import AFTER, BEFORE, SHOWN, contexts
from sparse_gpt.model import build
from sparse_gpt.model.taps import recorder
from tests import circuits_model


@pytest.mark.slow
def test_contexts_are_the_extremes_of_each_window() -> None:
    config = circuits_model.config()
    model, params = build(config), circuits_model.params(config)
    random = np.random.default_rng(0)
    batches = [random.integers(0, circuits_model.VOCABULARY, (4, 16)).astype(np.int32) for _ in range(3)]
    batches[2][1] = batches[0][0]  # a window that comes twice is shown once
    nodes = [Node(1, "mlp_neuron", 3), Node(0, "attn_v", 5), Node(1, "attn_in", 7)]
    found = contexts(model, params, nodes, iter(batches), "validation", str).tree()
    text = np.concatenate(batches)
    store: dict[tuple[str, int], jax.Array] = {}
    model.apply({"params": params}, text, tap=recorder(store, tuple(node.site for node in nodes)))
    assert found["tokens"] == text.size
    for node, entry in zip(nodes, found["nodes"], strict=True):
        assert (entry["layer"], entry["site"], entry["channel"]) == node
        values = np.asarray(store[node.site, node.layer])[..., node.channel]
        for end, sign in (("top", 1), ("bottom", -1)):
            per_window = np.delete((sign * values).max(axis=1), 9)  # 9 is the repeated one
            expected = sign * np.sort(per_window)[::-1][:SHOWN]
            np.testing.assert_allclose([c["value"] for c in entry[end]], expected, rtol=1e-4)
            best = entry[end][0]
            row, column = np.unravel_index(np.argmax(sign * values), values.shape)
            assert list(best["tokens"]) == [str(t) for t in text[row, max(0, column - BEFORE) : column + AFTER + 1]]
            assert best["tokens"][best["at"]] == str(text[row, column])


def test_no_nodes_no_contexts() -> None:
    config = circuits_model.config()
    params = circuits_model.params(config)
    found = contexts(build(config), params, [], [np.zeros((2, 8), np.int32)], "validation", str).tree()
    assert found["nodes"] == ()
