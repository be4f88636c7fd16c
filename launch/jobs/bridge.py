"""The work of launch.bridge."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from absl import flags

from launch import cli
from launch.heldout import heldout_rule_for
from sparse_gpt import config as configs
from sparse_gpt import estimate, locks, stored
from sparse_gpt.bridges import dense as dense_models
from sparse_gpt.bridges import linear, record, training
from sparse_gpt.config import Config
from sparse_gpt.data import Corpus, Tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.io import read_json
from sparse_gpt.model.parameters import Params
from sparse_gpt.records import MANIFEST
from sparse_gpt.training import claim, distributed, loop, manifest, run, sharding
from sparse_gpt.training.checkpoint import load_params

FITTED_TOKENS = 2**17  # behind the linear control: hundreds per parameter of a map's column


def main(config: Config) -> int:
    """Dense model, bridged run, bridge.json."""
    workdir = cli.workdir()
    cli.join_processes()
    sharding.make_mesh(config)  # before anything is written, like the next one
    estimate.check_here(config, "bridge")
    with claim.leave_as_found(cli.hold(workdir), parts=("dense",)):
        return _bridge(config, workdir)


def _bridge(config: Config, workdir: Path) -> int:
    """Everything that is done in the workdir. Returns an exit code."""
    initial = _initial(config, workdir)
    params = load_params(initial, config.model)[0] if initial else None
    apart = _folder(flags.FLAGS.independent) if flags.FLAGS.independent else initial
    independent = linear.load_independent(apart, config) if apart else None
    if initial:
        config = _without_annealing(_in_its_tokens(config, initial, "initial sparse"))
    if flags.FLAGS.dense:
        folder = _folder(flags.FLAGS.dense)
        dense = dense_models.load_dense(folder, config)
        config = _in_its_tokens(config, folder, "dense")
        _check_held(workdir, dense.params_sha256)
    else:
        folder = workdir / "dense"
        _check_held(workdir)
        if _train_dense(config, workdir).interrupted:
            return cli.INTERRUPTED
        dense = dense_models.load_dense(folder, config)
        _check_held(workdir, dense.params_sha256)
    if apart:
        _check_tokenizer(apart, folder)

    def start() -> Params:
        corpus = Corpus.open(config.data.corpus or workdir / "corpus")
        return linear.starting(config, dense, params, _fitting(config, corpus))

    mesh = sharding.spread(sharding.make_mesh(config))
    reject, rule = heldout_rule_for(config.data)
    result = run.train_on_corpus(
        config,
        workdir,
        reject=reject,
        reject_name=rule,
        init_from=params,
        objective=training.BridgeObjective(config, mesh, dense, start if initial else None),
        facts={"dense": str(folder), "dense_params_sha256": dense.params_sha256},
    )
    _tell(result, workdir)
    if result.interrupted:
        return cli.INTERRUPTED
    restored = training.restore(workdir, training.BridgeProgram(config, None, dense.config))  # by all processes

    def evaluate() -> None:
        corpus = Corpus.open(config.data.corpus or workdir / "corpus")
        validation, fitting = _validation(config, corpus), _fitting(config, corpus)
        print(record.describe(record.write(workdir, config, dense, restored, validation, independent, fitting)))

    distributed.first_does(evaluate)
    return 0


def _tell(result: loop.Result, workdir: Path, prefix: str = "") -> None:
    """One line about a run, from one of the processes."""
    if distributed.is_first():
        print(prefix + run.describe(result, manifest.read(workdir)))


def _folder(flag: str) -> Path:
    """The workdir that a flag names; InputError while another process writes to it."""
    folder = Path(flag).expanduser().absolute()
    locks.refuse_while_written(folder)
    return folder


def _initial(config: Config, workdir: Path) -> Path | None:
    """The workdir of the model that the sparse one starts from; a stored model is unpacked for that."""
    name = config.bridge.init_from
    if not name or Path(name).expanduser().is_dir():
        return _folder(name) if name else None
    stored.find(name, "--config.bridge.init_from")
    place = workdir / "initial"
    distributed.first_does(lambda: stored.unpack(name, place))
    return place


def _without_annealing(config: Config) -> Config:
    """The configuration with its target density from the first steps on, where no flag says otherwise: a model that is
    sparse already would lose by becoming dense again."""
    chosen = {"sparsity.anneal_start": 0.0, "sparsity.anneal_stop": 1e-3}
    return configs.replace(config, {name: value for name, value in chosen.items() if name not in cli.overrides()})


def _check_tokenizer(independent: Path, dense: Path) -> None:
    """InputError unless the two workdirs have the same tokenizer."""
    if Tokenizer.load(independent / "tokenizer").sha256 != Tokenizer.load(dense / "tokenizer").sha256:
        raise InputError(
            f"--independent={independent}: its tokenizer is not that of the dense model in {dense}; train it with "
            f"--config.data.tokenizer={dense / 'tokenizer'}"
        )


def _in_its_tokens(config: Config, folder: Path, model: str) -> Config:
    """The configuration with the tokenizer of the dense or the initial sparse model in `folder`; InputError if it names
    a corpus or tokenizer of another."""
    tokenizer = Tokenizer.load(folder / "tokenizer")
    for field, named in (("corpus", config.data.corpus), ("tokenizer", config.data.tokenizer)):
        if named:
            found = Corpus.open(named).tokenizer if field == "corpus" else Tokenizer.load(named)
            if found.sha256 != tokenizer.sha256:
                raise InputError(
                    f"--config.data.{field}={named}: its tokenizer is not that of the {model} model in {folder}; "
                    "both models must read the same tokens, so leave it out"
                )
    return configs.replace(config, {"data.tokenizer": config.data.tokenizer or str(folder / "tokenizer")})


def _check_held(workdir: Path, dense_sha256: str | None = None) -> None:
    """InputError if the workdir holds a run without bridges, or one with bridges to another dense model. Without a hash
    the dense model is the workdir's own, which may not be trained yet."""
    path = workdir / "manifest.json"
    if not os.path.lexists(path):
        return
    facts = read_json(path, MANIFEST)
    held = facts.get("dense_params_sha256")
    if held is None:
        raise InputError(f"{workdir}: holds a run without bridges; choose a new --workdir")
    if dense_sha256 is None and not (workdir / "dense").is_dir():
        raise InputError(f"{workdir}: its bridges lead to the model in {facts.get('dense')}; name it by --dense")
    if dense_sha256 is not None and held != dense_sha256:
        raise InputError(
            f"{workdir}: its bridges lead to another dense model; choose a new --workdir, or give that one"
        )


def _train_dense(config: Config, workdir: Path) -> loop.Result:
    """Trains (or finds finished) the dense model in WORKDIR/dense, on the corpus that the bridged run uses too."""
    dense = dense_models.dense_config(config)
    dense_models.check_pair(dense, config)
    reject, rule = heldout_rule_for(config.data)
    corpus = run.prepared_corpus(config, workdir, reject=reject, reject_name=rule)
    data = dataclasses.replace(dense.data, corpus=str(corpus.folder))
    result = run.train_on_corpus(dataclasses.replace(dense, data=data), workdir / "dense")
    _tell(result, workdir / "dense", "dense model: ")
    return result


def _validation(config: Config, corpus: Corpus) -> list[np.ndarray]:
    """Validation batches for one device."""
    mesh = sharding.make_mesh(configs.replace(config, {"train.mesh": ""}), jax.local_devices()[:1])
    return run.corpus_batches(config, corpus, mesh).validation


def _fitting(config: Config, corpus: Corpus) -> Iterator[np.ndarray]:
    """Training batches that the linear control is fitted on."""
    rows, context = config.train.batch_size, config.model.context
    count = -(-FITTED_TOKENS // (rows * context))
    return (corpus.batch("train", config.data.seed, s, rows, context) for s in range(count))
