"""The bridges' terms in plain float64 numpy, written from the method's description: one whole pass per hybrid.

Models come as in tests/reference_model.py: options and weights under the reference's names.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tests.reference_model import Array, Weights, _Pass, abs_top_k, complete


class Model(NamedTuple):
    """A model under the reference's names."""

    config: Mapping[str, Any]
    weights: Weights


def stream_name(boundary: int, layers: int) -> str:
    """What the reference calls the residual stream at a sublayer boundary."""
    if boundary == 2 * layers:
        return "final_resid"
    return f"{boundary // 2}.{'resid_mid' if boundary % 2 else 'resid_in'}"


class _Switched(_Pass):
    """A pass in which the residual stream takes a given value at one place; what came before has no effect."""

    def __init__(self, model: Model, place: str = "", value: Array | None = None) -> None:
        super().__init__(complete(model.config), model.weights, None, None)
        self.place, self.value = place, value

    def _record(self, name: str, x: Array) -> Array:
        return super()._record(name, self.value if name == self.place else x)


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def cross_entropy(logits: Array, targets: Array) -> float:
    return float(-np.take_along_axis(log_softmax(logits), targets[..., None], axis=-1).mean())


def divergence(wanted: Array, found: Array) -> float:
    """KL(wanted || found) of two arrays of logits, mean over positions."""
    p = log_softmax(wanted)
    return float((np.exp(p) * (p - log_softmax(found))).sum(axis=-1).mean())


def terms(
    dense: Model,
    sparse: Model,
    encoders: Sequence[Array],
    decoders: Sequence[Array],
    pairs: Sequence[tuple[int, int]],
    kept: int,
    rows: Array,
) -> dict[str, Any]:
    """Every term, per bridge, on rows of context + 1 tokens; an encoder keeps `kept` channels."""
    tokens, targets = rows[:, :-1], rows[:, 1:]
    dense_pass, sparse_pass = _Switched(dense), _Switched(sparse)
    dense_logits, sparse_logits = dense_pass.run(tokens), sparse_pass.run(tokens)
    found: dict[str, Any] = {
        "loss": cross_entropy(sparse_logits, targets),
        "dense_loss": cross_entropy(dense_logits, targets),
    }
    for i, (at_dense, at_sparse) in enumerate(pairs):
        place_d = stream_name(at_dense, dense.config["n_layer"])
        place_s = stream_name(at_sparse, sparse.config["n_layer"])
        h_dense, h_sparse = dense_pass.activations[place_d], sparse_pass.activations[place_s]
        encoded = abs_top_k(h_dense @ encoders[i].astype(np.float64), kept)
        decoded = h_sparse @ decoders[i].astype(np.float64)
        to_sparse = _Switched(sparse, place_s, encoded).run(tokens)
        to_dense = _Switched(dense, place_d, decoded).run(tokens)
        for name, value in (
            ("nmse_encoder", ((encoded - h_sparse) ** 2).sum() / (h_sparse**2).sum()),
            ("nmse_decoder", ((decoded - h_dense) ** 2).sum() / (h_dense**2).sum()),
            ("kl_to_sparse", divergence(dense_logits, to_sparse)),
            ("kl_to_dense", divergence(dense_logits, to_dense)),
            ("loss_to_sparse", cross_entropy(to_sparse, targets)),
            ("loss_to_dense", cross_entropy(to_dense, targets)),
        ):
            found.setdefault(name, []).append(value)
    return found


def mixture(
    dense: Model,
    sparse: Model,
    encoders: Sequence[Array],
    decoders: Sequence[Array],
    pairs: Sequence[tuple[int, int]],
    kept: int,
    rows: Array,
    path: str,
) -> float:
    """Cross-entropy of a path ("d" or "s" per piece between bridges), one whole pass per stretch in one model."""
    tokens, targets = rows[:, :-1], rows[:, 1:]
    models = {"d": dense, "s": sparse}
    current = _Switched(dense if path[0] == "d" else sparse)
    logits = current.run(tokens)
    for i, (before, after) in enumerate(itertools.pairwise(path)):
        if before == after:
            continue
        places = dict(zip("ds", pairs[i], strict=True))
        h = current.activations[stream_name(places[before], models[before].config["n_layer"])]
        kernel = (encoders if after == "s" else decoders)[i].astype(np.float64)
        value = abs_top_k(h @ kernel, kept) if after == "s" else h @ kernel
        current = _Switched(models[after], stream_name(places[after], models[after].config["n_layer"]), value)
        logits = current.run(tokens)
    return cross_entropy(logits, targets)
