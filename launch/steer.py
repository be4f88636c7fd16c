"""Takes circuits of a bridged sparse model to the dense model: steers it through one node, and ablates their images.

python -m launch.steer --workdir=runs/bridge      # every circuit there, after launch.bridge and launch.prune
python -m launch.steer --workdir=runs/bridge --task=while_return_true --node=1.attn_in.45

Writes steering.json and transport.json beside the circuit, in WORKDIR/circuits/TASK/.
"""

from absl import flags

from sparse_gpt import tasks
from sparse_gpt.errors import InputError

from . import cli


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    flags.DEFINE_string(
        "task",
        "",
        "Task, file of own pairs (.jsonl, .csv), or comma list of these; each needs its circuit. Default: every task "
        "that has one, of those that need no file.",
    )
    flags.DEFINE_string(
        "node",
        "",
        "Node to steer, as layer.site.channel; default: that of the circuit with the largest counterfactual difference "
        "times importance on validation samples.",
    )


def main() -> None:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    folder, node = cli.existing_workdir(written=True), _node(flags.FLAGS.node)
    chosen = tasks.select(flags.FLAGS.task) if flags.FLAGS.task else []
    from sparse_gpt.evaluation.transfer import transfer_circuits

    transfer_circuits(cli.hold(folder), chosen, node)


def _node(flag: str) -> tuple[int, str, int] | None:
    """--node, parsed."""
    if not flag:
        return None
    try:
        layer, site, channel = flag.split(".")
        return int(layer), site, int(channel)
    except ValueError as error:
        raise InputError(f"--node={flag}: expected layer.site.channel, such as 1.attn_in.45") from error


if __name__ == "__main__":
    cli.run(define_flags, main)
