"""A bridged run as one call: the models that it joins, the training of its bridges, and bridge.json."""

import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path

import jax
import numpy as np

from sparse_gpt import config as configs
from sparse_gpt.bridges import evaluation, least_squares, models, training
from sparse_gpt.bridges.dense import DenseModel, check_pair, dense_config, load_dense
from sparse_gpt.config import Config
from sparse_gpt.data import Corpus, corpus_folder
from sparse_gpt.data.cleaning import Rule
from sparse_gpt.parameters import Params
from sparse_gpt.training import distributed, loop, manifest, run, sharding
from sparse_gpt.training.checkpoint import load_params

FITTED_TOKENS = 2**17  # for the linear control: hundreds per parameter of a map's column


def train_bridges(
    config: Config,
    workdir: Path,
    dense: str | None = None,
    independent: str | None = None,
    chosen_fields: Collection[str] = (),
    rule: Rule | None = None,
) -> bool:
    """Trains bridges between a dense and a sparse model, or goes on with it, and evaluates them.

    Args:
      config: of the sparse model; config.bridge.init_from names the one that it starts from.
      workdir: holds the run, receives bridge.json, and dense/ with the dense model if none is given.
      dense: workdir of a trained dense model; without it, one is trained.
      independent: workdir of a sparse model trained without bridges, for the linear control; by default the one that
        the sparse model starts from.
      chosen_fields: dotted names of the fields that the user has set, which stay as they are.
      rule: which documents the corpus leaves out.

    Returns:
      Whether the run is finished; False when it was interrupted and saved.

    Raises:
      InputError: the models do not fit together, or the workdir holds another run.
    """
    initial = models.unpack_initial(config, workdir)
    if initial:
        models.check_initial(config, initial, chosen_fields)
    params = load_params(initial, config.model)[0] if initial else None
    apart = models.find_folder(independent) if independent else initial
    control = least_squares.load_independent(apart, config) if apart else None
    if initial:
        config = models.use_tokenizer(config, initial, "initial sparse")
        config = models.start_at_target_density(config, chosen_fields)
    folder = models.find_folder(dense) if dense else workdir / "dense"
    if dense:
        dense_model = load_dense(folder, config)
        config = models.use_tokenizer(config, folder, "dense")
    else:
        models.check_workdir(workdir)
        if _train_dense(config, workdir, rule).interrupted:
            return False
        dense_model = load_dense(folder, config)
    models.check_workdir(workdir, dense_model.params_sha256)
    if apart:
        models.check_same_tokenizer(apart, folder)
    if _train(config, workdir, folder, dense_model, params, rule).interrupted:
        return False
    restored = training.restore(workdir, training.BridgeProgram(config, None, dense_model.config))  # by all processes

    def evaluate() -> None:
        corpus = Corpus.open(corpus_folder(workdir, config))
        validation, fitting = _validation(config, corpus), _fitting(config, corpus)
        second = (control, fitting) if control else None
        result = evaluation.write(workdir, config, dense_model, restored, validation, second)
        print(evaluation.describe(result))

    distributed.first_does(evaluate)
    return True


def _train_dense(config: Config, workdir: Path, rule: Rule | None) -> loop.Result:
    """Trains (or finds finished) the dense model in WORKDIR/dense, on the corpus that the bridged run uses too."""
    dense = dense_config(config)
    check_pair(dense, config)
    corpus = run.prepared_corpus(config, workdir, rule)
    data = dataclasses.replace(dense.data, corpus=str(corpus.folder))
    result = run.train_on_corpus(dataclasses.replace(dense, data=data), workdir / "dense")
    _report(result, workdir / "dense", "dense model: ")
    return result


def _train(
    config: Config, workdir: Path, folder: Path, dense: DenseModel, params: Params | None, rule: Rule | None
) -> loop.Result:
    """Trains the sparse model and the bridges; `params` are what the sparse model starts from, `folder` has the dense
    one."""

    def start() -> Params:
        corpus = Corpus.open(corpus_folder(workdir, config))
        return least_squares.starting(config, dense, params, _fitting(config, corpus))

    mesh = sharding.spread(sharding.make_mesh(config))
    result = run.train_on_corpus(
        config,
        workdir,
        rule=rule,
        init_from=params,
        objective=training.BridgeObjective(config, mesh, dense, None if params is None else start),
        facts={"dense": str(folder), "dense_params_sha256": dense.params_sha256},
    )
    _report(result, workdir)
    return result


def _report(result: loop.Result, workdir: Path, prefix: str = "") -> None:
    """Prints one line about a run, from one of the processes."""
    if distributed.is_first():
        print(prefix + run.describe(result, manifest.read(workdir)))


def _validation(config: Config, corpus: Corpus) -> list[np.ndarray]:
    """Validation batches for one device."""
    mesh = sharding.make_mesh(configs.replace(config, {"train.mesh": ""}), jax.local_devices()[:1])
    return run.corpus_batches(config, corpus, mesh).validation


def _fitting(config: Config, corpus: Corpus) -> Iterator[np.ndarray]:
    """Training batches that linear maps are fitted on."""
    rows, context = config.train.batch_size, config.model.context
    count = -(-FITTED_TOKENS // (rows * context))
    return (corpus.batch("train", config.data.seed, s, rows, context) for s in range(count))
