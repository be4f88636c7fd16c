"""The work of launch.bridge."""

from absl import flags

from sparse_gpt import estimate
from sparse_gpt.bridges.run import train_bridges
from sparse_gpt.config import Config
from sparse_gpt.evaluation.heldout import heldout_rule_for
from sparse_gpt.training import claim, sharding

from .. import cli


def main(config: Config) -> int:
    """Dense model, bridged run, bridge.json. Returns an exit code."""
    f, workdir = flags.FLAGS, cli.workdir()
    cli.join_processes()
    sharding.make_mesh(config)  # before anything is written, like the next one
    estimate.check_here(config, "bridge")
    with claim.leave_as_found(cli.hold(workdir), parts=("dense",)):
        rule = heldout_rule_for(config.data)
        finished = train_bridges(config, workdir, f.dense, f.independent, cli.overrides(), rule)
    return 0 if finished else cli.INTERRUPTED
