"""Draws what a workdir holds into one page, WORKDIR/report/index.html, that opens offline.

python -m launch.report --workdir=runs/quickstart
"""

from . import cli, stored


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    stored.define_init_from()


def main() -> None:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    from .jobs import report as job

    job.main()


if __name__ == "__main__":
    cli.run(define_flags, main)
