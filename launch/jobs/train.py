"""The work of launch.train."""

import functools
from pathlib import Path

from absl import flags

from sparse_gpt import config as configs
from sparse_gpt.config import Config
from sparse_gpt.evaluation import tasks_solved
from sparse_gpt.evaluation.heldout import heldout_rule_for
from sparse_gpt.interop.params_file import ParamsFile
from sparse_gpt.stored.initial import check_tokenizer, load_initial
from sparse_gpt.training import distributed, loop, manifest, run, sharding

from .. import cli


def main(config: Config, params_out: Path | None) -> int:
    """Flags to one call of sparse_gpt.training.run. Returns an exit code."""
    f, workdir, batches = flags.FLAGS, cli.workdir(), None
    cli.join_processes()
    if f.dtype:
        config = configs.replace(config, {"train.dtype": f.dtype})
    if f.batches:
        config = run.fit_to_batches(config, Path(f.batches), keep_steps="train.steps" in cli.overrides())
        batches = run.read_batches(Path(f.batches), config)
    init_from = load_initial(f.init_from, config) if f.init_from else None
    params_file = ParamsFile(config, params_out, f.params_at)
    cli.hold(workdir)
    if batches is None:
        rule = heldout_rule_for(config.data)
        same = functools.partial(check_tokenizer, f.init_from) if f.init_from else None
        result = run.train_on_corpus(
            config, workdir, rule=rule, init_from=init_from, at_step=params_file, check_tokenizer=same
        )
    else:
        mesh = sharding.make_mesh(config)
        given = run.given_batches(batches, mesh)
        result = loop.train(config, workdir, given, init_from=init_from, at_step=params_file, mesh=mesh)
    params_file.finish(result)
    if distributed.is_first():
        facts = manifest.read(workdir)
        print(run.describe(result, facts))
        if config.train.evaluate_tasks and batches is None and not result.interrupted:
            print(tasks_solved.write(workdir, config, result.params, facts.params_sha256 or ""))
    return cli.INTERRUPTED if result.interrupted else 0
