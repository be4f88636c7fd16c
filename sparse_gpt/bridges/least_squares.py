"""The best linear maps between the streams of two models that were trained apart: least squares, both ways, at every
bridged boundary, in closed form from second moments in float64.

With a bias they are a control for trained bridges; without one, what bridges to a trained sparse model start as.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from sparse_gpt import config as configs
from sparse_gpt.bridges.dense import DenseModel
from sparse_gpt.bridges.hybrids import plain_pass
from sparse_gpt.bridges.objective import Bridged
from sparse_gpt.bridges.training import BridgeState, exact_program
from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree
from sparse_gpt.parameters import Params, PyTree
from sparse_gpt.training.checkpoint import load_params
from sparse_gpt.training.manifest import params_sha256
from sparse_gpt.training.step import TrainState


@dataclasses.dataclass(frozen=True)
class Independent:
    """A sparse model trained without bridges: its configuration, parameters (numpy arrays) and their fingerprint."""

    config: Config
    params: Params
    params_sha256: str


def load_independent(folder: Path, config: Config) -> Independent:
    """The model in a workdir, which is to stand beside the bridged one of `config`.

    Raises:
      InputError: its vocabulary or number of layers is another, its context is shorter, or the workdir holds no
        configuration or no readable checkpoint.
    """
    own = configs.load(folder)
    theirs, ours = own.model, config.model
    for field, fits in (
        ("vocab_size", theirs.vocab_size == ours.vocab_size),
        ("n_layer", theirs.n_layer == ours.n_layer),
        ("context", theirs.context >= ours.context),
    ):
        if not fits:
            raise InputError(
                f"--independent={folder}: its {field} is {getattr(theirs, field)}, that of the bridged model "
                f"{getattr(ours, field)}; give a model of the same kind, trained without bridges"
            )
    params, _ = load_params(folder, theirs)
    return Independent(own, params, params_sha256(params))


def fit(
    bridged: Bridged, dense_params: Params, params: Params, batches: Iterable[np.ndarray], bias: bool = True
) -> Params:
    """Encoders and decoders (kernel and, by default, bias) of least squared error over some tokens.

    Args:
      bridged: the models; its `fraction` plays no part.
      dense_params, params: of the dense and the sparse model.
      batches: (B, T) token ids, one shape.
      bias: whether the maps have one.

    Where streams do not determine a map (a channel that is always zero), it is the one of least norm.
    """

    @jax.jit
    def streams(dense_params: Params, params: Params, tokens: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
        h_dense, _ = plain_pass(bridged.dense, dense_params, tokens, [pair.dense for pair in bridged.pairs])
        h_sparse, _ = plain_pass(bridged.sparse, params, tokens, [pair.sparse for pair in bridged.pairs])
        return h_dense, h_sparse

    moments: list[PyTree] = [0.0] * len(bridged.pairs)
    for tokens in batches:
        for i, (d, s) in enumerate(zip(*streams(dense_params, params, tokens), strict=True)):
            z = np.concatenate([_rows(d), _rows(s), np.ones((tokens.size, 1))], axis=1)
            moments[i] = moments[i] + z.T @ z
    width = bridged.dense.config.d_model
    found: Params = {}
    for i, moment in enumerate(moments):
        dense, sparse = np.arange(width), np.arange(width, len(moment) - 1)
        found[f"encoder_{i}"] = _least_squares(moment, dense, sparse, bias)
        found[f"decoder_{i}"] = _least_squares(moment, sparse, dense, bias)
    return found


def _rows(h: jax.Array) -> np.ndarray:
    """(B, T, D) as (B T, D) in float64."""
    return np.asarray(h, np.float64).reshape(-1, h.shape[-1])


def _least_squares(moment: np.ndarray, read: np.ndarray, write: np.ndarray, bias: bool) -> dict[str, np.ndarray]:
    """The map from channels `read` to channels `write`, from sums of products whose last channel is one."""
    every = np.append(read, len(moment) - 1) if bias else read
    solution = np.linalg.lstsq(moment[np.ix_(every, every)], moment[np.ix_(every, write)], rcond=None)[0]
    solution = solution.astype(np.float32)
    return {"kernel": solution[: len(read)]} | ({"bias": solution[-1]} if bias else {})


def starting(config: Config, dense: DenseModel, params: Params, fitting: Iterable[np.ndarray]) -> Params:
    """Bridges for a sparse model that is trained already: maps without bias, fitted on batches (rows, context + 1)."""
    program = exact_program(config, dense.config)
    tokens = (batch[:, :-1] for batch in fitting)
    return fit(program.bridged, program.place(dense.params), params, tokens, bias=False)


def measure(
    config: Config,
    dense: DenseModel,
    independent: Independent,
    fitting: Iterable[np.ndarray],
    validation: list[np.ndarray],
) -> Tree:
    """Every term of the bridges' objective with fitted maps between the dense and an independent sparse model.

    Args:
      config, dense: of the bridged run.
      independent: the sparse model that was trained apart.
      fitting: batches (rows, context + 1) that the maps are fitted on.
      validation: batches of the same kind that the terms are means over.

    Returns:
      As BridgeProgram.evaluation.
    """
    # AbsTopK follows an encoder because it was trained with it; a fitted map would only lose by it.
    apart = dataclasses.replace(
        config,
        model=independent.config.model,
        sparsity=independent.config.sparsity,
        bridge=dataclasses.replace(config.bridge, encoder_fraction=1.0),
    )
    program = exact_program(apart, dense.config)
    held = program.place(dense.params)
    maps = fit(program.bridged, held, independent.params, (batch[:, :-1] for batch in fitting))
    return program.evaluation(held)(TrainState(independent.params, BridgeState(maps, None)), validation)
