"""The dense model of a bridged pair: the one that is given, or the one that is trained when none is."""

import dataclasses
from pathlib import Path

from sparse_gpt import config as configs
from sparse_gpt.bridges.boundaries import boundary_map, groups
from sparse_gpt.bridges.bridge import encoder_fraction
from sparse_gpt.config import Config, SparsityConfig
from sparse_gpt.errors import InputError
from sparse_gpt.parameters import Params
from sparse_gpt.training.checkpoint import load_params
from sparse_gpt.training.manifest import params_sha256


@dataclasses.dataclass(frozen=True)
class DenseModel:
    """A trained model that stays as it is: its configuration, parameters (numpy arrays) and their fingerprint."""

    config: Config
    params: Params
    params_sha256: str


def load_dense(folder: Path, config: Config) -> DenseModel:
    """The model in a workdir, checked against the configuration of a bridged run.

    Raises:
      InputError: see `check_pair`; also if the workdir holds no configuration or no readable checkpoint.
    """
    dense = configs.load(folder)
    check_pair(dense, config)
    params, _ = load_params(folder, dense.model)
    return DenseModel(dense, params, params_sha256(params))


def check_pair(dense: Config, config: Config) -> None:
    """InputError unless bridges can join the two models: vocabulary, context, boundary map, number of hybrids, and
    encoders that keep a channel."""
    d, m = dense.model, config.model
    if d.vocab_size != m.vocab_size:
        raise InputError(
            f"--config.model.vocab_size={m.vocab_size}: the dense model has a vocabulary of {d.vocab_size}; both need "
            f"the same, so set it to {d.vocab_size}"
        )
    if d.context < m.context:
        raise InputError(f"--config.model.context={m.context}: the dense model reads at most {d.context}; lower it")
    pairs = boundary_map(config.bridge.boundaries, d.n_layer, m.n_layer)
    groups(len(pairs), config.bridge.sampled)
    encoder_fraction(config)


def dense_config(config: Config) -> Config:
    """The dense model that a bridged run trains for itself: the sparse one's shape at bridge.dense_d_model channels,
    without any sparsity, on the same batches."""
    b, m = config.bridge, config.model
    width = b.dense_d_model
    return configs.validate(
        dataclasses.replace(
            config,
            model=dataclasses.replace(m, d_model=width, n_head=max(1, width // m.d_head), d_mlp=4 * width),
            sparsity=SparsityConfig(density=1.0, embedding_density=1.0, min_alive=0, activation_fraction=0.0),
            optimizer=dataclasses.replace(config.optimizer, learning_rate=b.dense_learning_rate),
            train=dataclasses.replace(config.train, steps=b.dense_steps),
        )
    )
