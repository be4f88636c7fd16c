"""The work of launch.train."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from sparse_gpt import config as configs
from sparse_gpt import locks, stored
from sparse_gpt.arrays import npy_shape, read_npz
from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.evaluation import tasks_solved
from sparse_gpt.evaluation.heldout import heldout_rule_for
from sparse_gpt.interop import openai_weights
from sparse_gpt.io import replacing
from sparse_gpt.parameters import Params
from sparse_gpt.training import distributed, loop, manifest, run, sharding
from sparse_gpt.training.checkpoint import load_params

from .. import cli, paths


def main(config: Config) -> int:
    """Flags to one call of sparse_gpt.training.run."""
    cli.join_processes()
    if flags.FLAGS.dtype:
        config = configs.replace(config, {"train.dtype": flags.FLAGS.dtype})
    batches = None
    if flags.FLAGS.batches:
        config = _fitted_to_batches(config, Path(flags.FLAGS.batches))
        batches = run.read_batches(Path(flags.FLAGS.batches), config)
    init_from = _initial_params(flags.FLAGS.init_from, config)
    writer = _ParamsWriter(config)
    cli.hold(cli.workdir())
    if batches is None:
        reject, rule = heldout_rule_for(config.data)
        result = run.train_on_corpus(
            config, cli.workdir(), reject=reject, reject_name=rule, init_from=init_from, at_step=writer
        )
    else:
        mesh = sharding.make_mesh(config)
        given = run.given_batches(batches, mesh)
        result = loop.train(config, cli.workdir(), given, init_from=init_from, at_step=writer, mesh=mesh)
    writer.finish(result)
    if distributed.is_first():
        facts = manifest.read(cli.workdir())
        print(run.describe(result, facts))
        if config.train.evaluate_tasks and batches is None and not result.interrupted:
            print(tasks_solved.write(cli.workdir(), config, result.params, facts.params_sha256 or ""))
    return cli.INTERRUPTED if result.interrupted else 0


def _fitted_to_batches(config: Config, path: Path) -> Config:
    """Batch size, and the number of steps unless it was given, from the array of batches."""
    shape = npy_shape(path, f"--batches={path}")
    if len(shape) != 3:
        raise InputError(f"--batches={path}: shape {shape}; expected (steps, batch, time + 1)")
    extra = config.optimizer.recipe == "openai_reference"  # it takes steps + 1 iterations
    steps = config.train.steps if "train.steps" in cli.overrides() else shape[0] - extra
    train = dataclasses.replace(config.train, steps=steps, batch_size=shape[1])
    return configs.validate(dataclasses.replace(config, train=train))


def _initial_params(source: str | None, config: Config) -> Params | None:
    """Parameters named by --init_from, checked against the configured model."""
    if not source:
        return None
    path = Path(source).expanduser()
    if path.suffix == ".npz":
        arrays = read_npz(path, f"--init_from={source}")
        tensors = {
            name: array if array.dtype.kind == "c" else np.asarray(array, np.float32) for name, array in arrays.items()
        }
        params = openai_weights.to_params(config.model, tensors, str(path))
    elif path.is_dir():
        locks.refuse_while_written(path)
        params, _ = load_params(path, configs.load(path).model)
    else:
        params = stored.load(source)[1]
    loop.check_params(config, params)
    return params


class _ParamsWriter:
    """Writes --params_out once --params_at steps are done."""

    def __init__(self, config: Config):
        self.config, self.at = config, flags.FLAGS.params_at
        out = flags.FLAGS.params_out
        self.path = paths.output_file("params_out", out) if out else None
        if self.at is not None and self.path is None:
            raise InputError(f"--params_at={self.at}: needs --params_out=FILE.npz")

    def __call__(self, finished: int, params: Params) -> None:
        if self.path is not None and finished == self.at:
            self._write(sharding.to_host(params))

    def finish(self, result: loop.Result) -> None:
        if self.path is not None and self.at is None and not result.interrupted:
            self._write(result.params)

    def _write(self, params: Params) -> None:
        if self.path is None or not distributed.is_first():
            return
        tensors: dict[str, Any] = openai_weights.to_tensors(self.config.model, params)
        with replacing(self.path) as temporary:
            np.savez(temporary, **tensors)
