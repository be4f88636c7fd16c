"""The work of launch.steer."""

from pathlib import Path

from sparse_gpt.bridges.steering import Node
from sparse_gpt.evaluation.transfer import transfer_circuits
from sparse_gpt.tasks import AnyTask

from .. import cli


def main(folder: Path, chosen: list[AnyTask], node: Node | None) -> None:
    """Steers the dense model, and ablates images in it, for every chosen task."""
    transfer_circuits(cli.hold(folder), chosen, node)
